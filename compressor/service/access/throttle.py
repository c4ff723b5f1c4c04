"""Whoever tries many keys that do not exist has to wait."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable
from threading import Lock

from compressor.service.errors import TooManyError

#: So many addresses are remembered; those heard of longest ago are forgotten.
ADDRESSES = 10_000


class Throttle:
    """Failures per address: after ``most`` of them, none more for a while, however good.

    Keys have 256 bits, so nobody guesses one; this keeps those who try from costing anything. An address from which a
    key has been accepted is many people, perhaps: that key goes on working there.

    Args:
        most: Failures that an address has at once.
        seconds: Time in which one more is granted.
    """

    def __init__(
        self, most: int = 20, seconds: float = 3.0, *, now: Callable[[], float] = time.monotonic, keep: int = ADDRESSES
    ) -> None:
        self._most, self._seconds, self._now, self._keep = most, seconds, now, keep
        self._failures: OrderedDict[str, tuple[float, float]] = OrderedDict()
        self._good: OrderedDict[tuple[str, bytes], None] = OrderedDict()
        self._lock = Lock()

    def admit(self, address: str, digest: bytes) -> None:
        """Refuse an address that has failed too often.

        Raises:
            TooManyError: It has to wait; ``retry_after`` are seconds.
        """
        with self._lock:
            if (address, digest) in self._good:
                return
            count = self._count(address)
        if (over := count - (self._most - 1)) > 0:
            wait = max(1, round(self._seconds * over))
            error = TooManyError(f"Too many wrong keys came from {address}; try again in {wait} s.")
            error.retry_after = wait
            raise error

    def failed(self, address: str) -> None:
        """Count a failure."""
        with self._lock:
            self._failures[address] = (self._count(address) + 1, self._now())
            self._failures.move_to_end(address)
            if len(self._failures) > self._keep:
                self._failures.popitem(last=False)

    def accepted(self, address: str, digest: bytes) -> None:
        """Remember a key that is good at an address."""
        with self._lock:
            self._good[address, digest] = None
            self._good.move_to_end((address, digest))
            if len(self._good) > self._keep:
                self._good.popitem(last=False)

    def _count(self, address: str) -> float:
        """Failures that count now: they fade, one in ``seconds``."""
        count, then = self._failures.get(address, (0.0, 0.0))
        return max(0.0, count - (self._now() - then) / self._seconds)
