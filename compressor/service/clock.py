"""The time, as the service reads it: injected, so that tests decide what it is."""

from __future__ import annotations

import time
from datetime import UTC, datetime


class Clock:
    """The system's clocks. The wall clock may jump; the monotonic one only goes forward, and is no date."""

    def now(self) -> datetime:
        """The time of day: aware, in UTC."""
        return datetime.now(UTC)

    def monotonic(self) -> float:
        """Seconds since some moment, for lengths of time alone."""
        return time.monotonic()
