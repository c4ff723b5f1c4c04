"""Logs on stderr: a line for each request and event, as text or as JSON, with the job it is about."""

from __future__ import annotations

import json
import logging
import sys
import time
from contextvars import ContextVar
from datetime import UTC, datetime
from typing import Literal

from compressor.printable import printable, printable_json

LOGGER = "compressor.service"
current_job: ContextVar[str | None] = ContextVar("current_job", default=None)
"""The job that what happens just now is about."""
_FIELDS = ("method", "route", "status", "ms", "who", "job", "worker")


class _Text(logging.Formatter):
    """``2026-03-02T09:12:45.123Z INFO POST /v1/jobs 201 12.1 ms who=local job=0197...``."""

    def format(self, record: logging.LogRecord) -> str:
        said = [f"{name}={value}" for name in _FIELDS if (value := _value(record, name)) is not None]
        text = " ".join([_time(record), record.levelname, record.getMessage(), *said])
        if record.exc_info:
            text += "\n" + self.formatException(record.exc_info)
        return printable(text)


class _Json(logging.Formatter):
    """One object a line."""

    def format(self, record: logging.LogRecord) -> str:
        document: dict[str, object] = {"time": _time(record), "level": record.levelname.lower(), "logger": record.name}
        document["message"] = record.getMessage()
        document |= {name: value for name in _FIELDS if (value := _value(record, name)) is not None}
        if record.exc_info:
            document["traceback"] = self.formatException(record.exc_info)
        return printable_json(json.dumps(document, ensure_ascii=False, default=str))


def _time(record: logging.LogRecord) -> str:
    time_of = datetime.fromtimestamp(record.created, UTC)
    return time_of.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _value(record: logging.LogRecord, name: str) -> object:
    found: object = getattr(record, name, None)
    return current_job.get() if found is None and name == "job" else found


def set_up(form: Literal["text", "json"], level: int = logging.INFO) -> None:
    """Write the logs of the service, and errors of uvicorn, to stderr in one form. Again replaces what was set up."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_Json() if form == "json" else _Text())
    for name, least in ((LOGGER, level), ("uvicorn.error", logging.WARNING), ("asyncio", logging.WARNING)):
        logger = logging.getLogger(name)
        logger.handlers[:] = [handler]
        logger.setLevel(least)
        logger.propagate = False


class Stopwatch:
    """Milliseconds since it was made."""

    def __init__(self) -> None:
        self._began = time.perf_counter()

    @property
    def seconds(self) -> float:
        """Seconds since it was made."""
        return time.perf_counter() - self._began
