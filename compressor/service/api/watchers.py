"""Who watches jobs just now, and when everybody has to stop."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from compressor.service.errors import TooManyError
from compressor.service.queue.bell import Bell

MOST = 1000
"""Streams at once: each is a coroutine, of a few kilobytes."""


class Watchers:
    """Streams of events. Each takes no thread."""

    def __init__(self, most: int = MOST) -> None:
        self.count = 0
        self._most = most

    @contextmanager
    def one(self) -> Iterator[None]:
        """Counts one, as long as the block runs. Raises ``TooManyError``."""
        if self.count >= self._most:
            error = TooManyError(f"{self.count} watch already; ask for the events as JSON instead.")
            error.retry_after = 10
            raise error
        self.count += 1
        try:
            yield
        finally:
            self.count -= 1


class Closing:
    """Set when the server stops: long polls and streams end then. Awaited where a bell is listened to, since closing
    rings all."""

    def __init__(self, bell: Bell) -> None:
        self._bell = bell
        self._set = False

    def set(self) -> None:
        """End whatever waits."""
        self._set = True
        self._bell.ring_all()

    def is_set(self) -> bool:
        """Whether the server stops."""
        return self._set
