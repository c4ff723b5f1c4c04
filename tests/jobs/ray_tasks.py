"""What tests do on Ray: functions that other processes import by name."""

from __future__ import annotations

import os
import signal
import threading
import time
from pathlib import Path
from typing import Any

from compressor.errors import CompressorError, UnreachableBudgetError
from compressor.process.pool import side_by_side


def doubled(value: int) -> dict[str, int]:
    if value == 13:
        raise UnreachableBudgetError("13 is none")
    return {"value": 2 * value}


def ends_its_process(status: int) -> None:
    raise SystemExit(status)


def dies(folder: str, times: int) -> int:
    """Kills its process, the first ``times`` times."""
    tried = len(list(Path(folder).iterdir()))
    (Path(folder) / str(tried)).touch()
    if tried < times:
        os.kill(os.getpid(), signal.SIGKILL)
    return tried


def sleeps(folder: str) -> None:
    (Path(folder) / "pid").write_text(str(os.getpid()))
    threading.Event().wait()


def beside(folder: str, name: str) -> int:
    """How many were at it at once, at most."""
    mine = Path(folder) / name
    mine.touch()
    most = 0
    for _ in range(10):
        most = max(most, len(list(Path(folder).iterdir())))
        time.sleep(0.03)
    mine.unlink()
    return most


def scaled(times: int, task: int) -> tuple[int, int]:
    return times * task, os.getpid()


def inner(times: int) -> dict[str, Any]:
    """Work side by side inside a task."""
    found: dict[int, tuple[int, int]] = {}
    side_by_side(scaled, times, [1, 2, 3], 2, found.__setitem__, died=lambda task: CompressorError("died"))
    return {
        "found": {str(k): v[0] for k, v in found.items()},
        "own": os.getpid(),
        "theirs": [v[1] for v in found.values()],
    }
