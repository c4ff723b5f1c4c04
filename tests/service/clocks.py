"""A clock that tests move."""

from __future__ import annotations

import threading
from datetime import UTC, datetime, timedelta

from compressor.service.clock import Clock


class FakeClock(Clock):
    """Stands still until it is moved. Each look at the time is a microsecond later, so that no two are alike."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._now, self._monotonic = datetime(2030, 1, 1, tzinfo=UTC), 1000.0

    def now(self) -> datetime:
        with self._lock:
            self._now += timedelta(microseconds=1)
            return self._now

    def monotonic(self) -> float:
        with self._lock:
            return self._monotonic

    def advance(self, seconds: float) -> None:
        """Time goes by."""
        with self._lock:
            self._now += timedelta(seconds=seconds)
            self._monotonic += seconds

    def jump(self, seconds: float) -> None:
        """Somebody sets the wall clock."""
        with self._lock:
            self._now += timedelta(seconds=seconds)
