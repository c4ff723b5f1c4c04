"""How a job ended, in words, and what it left to read."""

from __future__ import annotations

import signal
from contextlib import suppress
from pathlib import Path
from typing import Any

from compressor.process.failures import explain
from compressor.service.worker.folder import LOG


def failure(error: BaseException) -> dict[str, Any]:
    """An error of the worker as that of the job."""
    code, text = explain(error, more="the worker's log may say more")
    return {"kind": type(error).__name__, "text": text, "exit_code": code}


def death(code: int | None) -> dict[str, Any]:
    """What to say of a process that ended without a word."""
    text = f"The job's process ended without a result (exit code {code})."
    if code is not None and code < 0:
        with suppress(ValueError):  # a number that is no signal here
            name = signal.Signals(-code).name
            hint = "; the machine may have run out of memory" if name == "SIGKILL" else ""
            text = f"The job's process was ended by {name}{hint}."
    return {"kind": "ProcessDied", "text": f"{text} Its {LOG} has what it said.", "exit_code": 1}


def taken_log(result: Path) -> str:
    """What earlier attempts wrote, taken out of the way of a job that goes on."""
    try:
        text = (result / LOG).read_text(encoding="utf-8", errors="replace")
        (result / LOG).unlink()
    except OSError:
        return ""
    return f"{text.rstrip()}\n" if text.strip() else ""
