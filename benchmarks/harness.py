"""Results as JSON lines, one per run, written as soon as it is there: a benchmark can be stopped and continued."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any


def read(path: Path) -> list[dict[str, Any]]:
    """All rows; none if there is no file yet."""
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()] if path.exists() else []


def append(path: Path, row: dict[str, Any]) -> None:
    """Add a row."""
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(row) + "\n")
