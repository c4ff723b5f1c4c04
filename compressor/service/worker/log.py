"""What a child writes to its terminal, up to a size: a job that prints without end fills no disk."""

from __future__ import annotations

import os
import threading
from contextlib import suppress
from typing import IO

MOST_BYTES = 256 << 10
_PIECE = 1 << 16


class CappedLog:
    """Reads a pipe to its end in a thread; keeps the first and the last of it."""

    def __init__(self, pipe: IO[bytes], most: int = MOST_BYTES) -> None:
        self._pipe, self._most = pipe, most
        self._head, self._tail, self._left_out = bytearray(), bytearray(), 0
        self._lock = threading.Lock()
        self._thread = threading.Thread(target=self._read, name="log of a job", daemon=True)
        self._thread.start()

    def text(self) -> str:
        """What there is so far."""
        with self._lock:
            middle = f"\n... {self._left_out} bytes ...\n".encode() if self._left_out else b""
            return (bytes(self._head) + middle + bytes(self._tail)).decode("utf-8", "replace")

    def close(self) -> None:
        """Wait for the end, which comes when the last process that could write has ended."""
        self._thread.join(timeout=2)

    def _read(self) -> None:
        half = self._most // 2
        with suppress(OSError, ValueError), self._pipe:  # a pipe that was closed has nothing more to say
            while piece := os.read(self._pipe.fileno(), _PIECE):
                with self._lock:
                    room = half - len(self._head)
                    self._head += piece[: max(0, room)]
                    self._tail += piece[max(0, room) :]
                    if (over := len(self._tail) - half) > 0:
                        del self._tail[:over]
                        self._left_out += over
