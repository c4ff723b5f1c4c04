"""No test reads or writes the user's latency table."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from compressor.nn.aggregated import fastest, remembered


@pytest.fixture(autouse=True)
def table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The file of an empty latency table."""
    path = tmp_path / "lut.sqlite"
    monkeypatch.setenv(remembered.VARIABLE, str(path))
    fastest.forget()
    yield path
    fastest.forget()
