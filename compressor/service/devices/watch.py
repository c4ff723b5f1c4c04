"""How long something has stood still, by a clock that does not jump."""

from __future__ import annotations

import threading
from collections.abc import Hashable

from compressor.service.clock import Clock


class Watch:
    """Remembers when each value was first seen. What another server wrote counts from when this one saw it."""

    def __init__(self, clock: Clock) -> None:
        self._clock, self._lock = clock, threading.Lock()
        self._seen: dict[Hashable, tuple[object, float]] = {}

    def unchanged_for(self, key: Hashable, value: object) -> float:
        """Seconds since ``key`` was first seen with this value."""
        now = self._clock.monotonic()
        with self._lock:
            known = self._seen.get(key)
            if known is None or known[0] != value:
                self._seen[key] = value, now
                return 0.0
            return now - known[1]

    def forget(self, key: Hashable) -> None:
        """It is gone."""
        with self._lock:
            self._seen.pop(key, None)
