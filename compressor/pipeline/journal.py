"""A listener that writes what happens into a file: JSON Lines, a document for each event, as it happens."""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

from compressor.pipeline.events import Event, JobEnded, ListenerLostError, Step, is_sample
from compressor.printable import printable_json
from compressor.storage.codec import encode


def _now() -> datetime:
    return datetime.now(UTC)


class Journal:
    """Writes events to the end of a file, each as one line in one go; of training steps about a thousand.

    A line says ``time`` (UTC, ISO 8601), ``event`` (the kind) and what the event has; what is not finite is null.
    Where an earlier process died while it wrote, its half line goes. A file that cannot be written is given up: that
    is a ``ListenerLostError``, which ends no job.

    Args:
        append: go on after what is there; else begin anew.
    """

    steps = True

    def __init__(self, path: str | os.PathLike[str], *, append: bool, now: Callable[[], datetime] = _now) -> None:
        self.path, self._append, self._now = Path(path), append, now
        self._file: int | None = None

    def __call__(self, event: Event) -> None:
        if isinstance(event, Step) and not is_sample(event):
            return
        time = self._now().isoformat(timespec="milliseconds").replace("+00:00", "Z")
        document = {"time": time, **encode(event.to_json())}
        line = printable_json(json.dumps(document, ensure_ascii=False, allow_nan=False)) + "\n"
        try:
            if self._file is None:
                self._file = _opened(self.path, append=self._append)
            _write(self._file, line.encode())
        except OSError as error:
            self.close()
            raise ListenerLostError(
                f"What happens is no longer written to {self.path}: {error.strerror or error}."
            ) from error
        if isinstance(event, JobEnded):
            self.close()

    def close(self) -> None:
        """Close the file; it is opened again, to go on after what is there, if more happens."""
        if self._file is not None:
            with suppress(OSError):
                os.close(self._file)
        self._file, self._append = None, True


def _opened(path: Path, *, append: bool) -> int:
    """The file, ready for a line. Raises ``OSError``, also for what is no regular file."""
    flags = os.O_RDWR | os.O_CREAT | os.O_APPEND | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)
    file = os.open(path, flags | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_BINARY", 0), 0o666)
    try:
        if not stat.S_ISREG(os.fstat(file).st_mode):
            raise OSError(f"{path} is no file")
        os.ftruncate(file, _end_of_lines(file) if append else 0)
    except BaseException:
        os.close(file)
        raise
    return file


def _end_of_lines(file: int) -> int:
    """Bytes up to the end of the last whole line."""
    end = os.fstat(file).st_size
    while end > 0:
        start = max(0, end - (1 << 16))
        os.lseek(file, start, os.SEEK_SET)
        found = os.read(file, end - start).rfind(b"\n")
        if found >= 0:
            return start + found + 1
        end = start
    return 0


def _write(file: int, data: bytes) -> None:
    """All of it. What a full disk took of it is taken back."""
    before = os.fstat(file).st_size
    written = 0
    try:
        while written < len(data):
            written += os.write(file, data[written:])
    except OSError:
        with suppress(OSError):
            os.ftruncate(file, before)
        raise
