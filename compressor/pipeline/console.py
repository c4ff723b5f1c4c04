"""What a long job says while it works: to stderr, so that stdout holds the result alone."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import IO, TYPE_CHECKING

from compressor.printable import printable

if TYPE_CHECKING:
    from compressor.train.progress import Progress


class Console:
    """Messages, stages and progress of one job.

    Args:
        stream: where to write; stderr unless given.
        quiet: write warnings only.

    Attributes:
        warnings: every warning so far, for the report.
        stage_seconds: how long each finished stage took, in the order they ended.
    """

    def __init__(self, stream: IO[str] | None = None, *, quiet: bool = False) -> None:
        self._stream = stream
        self.quiet = quiet
        self.warnings: list[str] = []
        self.stage_seconds: dict[str, float] = {}

    def info(self, text: str) -> None:
        """Say something worth knowing."""
        if not self.quiet:
            self._line(printable(text))

    def warn(self, text: str) -> None:
        """Say something that must not be missed, once; quiet or not."""
        if text in self.warnings:
            return
        self.warnings.append(text)
        target = self._target()
        label = "\033[1;33mWarning:\033[0m" if target.isatty() else "Warning:"
        self._line(f"{label} {printable(text)}")

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Announce a stage and time it. Times of stages with the same name add up."""
        self.info(f"{name} ...")
        started = time.perf_counter()
        yield
        seconds = time.perf_counter() - started
        self.stage_seconds[name] = self.stage_seconds.get(name, 0.0) + seconds
        self.info(f"{name}: {seconds:.1f} s")

    def progress(self, label: str) -> Progress | None:
        """What a training loop reports its steps to; None if nothing is to be shown."""
        if self.quiet:
            return None
        from compressor.train.progress import make_progress

        return make_progress(label, self._target())

    def _target(self) -> IO[str]:
        # Looked up on use: stderr may have been replaced since.
        return self._stream if self._stream is not None else sys.stderr

    def _line(self, text: str) -> None:
        with suppress(OSError, ValueError):  # stderr may be full or closed, and a message must not end a job
            print(text, file=self._target(), flush=True)
