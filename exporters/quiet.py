"""Exporters talk a lot; a program whose stdout is its result must not."""

from __future__ import annotations

import contextlib
import io
import logging
import sys
import threading
import warnings
from collections.abc import Iterator
from typing import TextIO

EXPORTING = threading.RLock()
_TALKATIVE = ("torch.onnx", "torch.export", "torch._export", "torch._dynamo", "onnxscript", "onnx_ir", "onnxruntime")


@contextlib.contextmanager
def quiet() -> Iterator[io.StringIO]:
    """Silence prints, warnings and loggers of the exporters; yields what was printed.

    Streams, filters and levels are those of the whole process, so one thread at a time exports; what other threads
    print meanwhile is theirs.
    """
    printed = io.StringIO()
    with EXPORTING:
        loggers = [logging.getLogger(name) for name in _TALKATIVE]
        levels = [logger.level for logger in loggers]
        try:
            for logger in loggers:
                logger.setLevel(logging.CRITICAL)
            out, err = _Mine(printed, sys.stdout), _Mine(printed, sys.stderr)
            with warnings.catch_warnings(), contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
                warnings.simplefilter("ignore")
                yield printed
        finally:
            for logger, level in zip(loggers, levels, strict=True):
                logger.setLevel(level)


class _Mine(io.TextIOBase):
    """Takes what the thread that made it prints; the rest goes where it went before."""

    def __init__(self, printed: io.StringIO, before: TextIO) -> None:
        self._printed, self._before, self._thread = printed, before, threading.get_ident()

    def write(self, text: str) -> int:
        return (self._printed if threading.get_ident() == self._thread else self._before).write(text)

    def flush(self) -> None:
        if threading.get_ident() != self._thread:
            self._before.flush()


def first_line(error: BaseException) -> str:
    """The innermost cause of ``error`` in one line, short enough for a message."""
    while error.__cause__ is not None:
        error = error.__cause__
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    text = lines[0] if lines else type(error).__name__
    return text if len(text) <= 200 else text[:197] + "..."
