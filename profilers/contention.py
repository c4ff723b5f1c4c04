"""How long this process waited for cores that others held: what tells a busy machine from a slow one.

The kernel of Linux counts for every thread the time in which it could have run and did not
(``/proc/PID/task/TID/schedstat``, second number, nanoseconds). Other systems do not tell; nothing is waited for there.
"""

from __future__ import annotations

import os
import time
from pathlib import Path

#: Share of the time waited for above which timings are of a busy machine. Without other work it is about 0.01.
BUSY = 0.1

_THREADS = Path("/proc/self/task")


def waited_s() -> float:
    """Seconds that the threads of this process have waited for a core so far; 0 where the system does not tell."""
    total = 0
    try:
        for thread in os.listdir(_THREADS):
            try:
                total += int((_THREADS / thread / "schedstat").read_bytes().split()[1])
            except (OSError, IndexError, ValueError):
                continue  # a thread that has just ended, or a kernel without the count
    except OSError:
        return 0.0
    return total / 1e9


class Contention:
    """Inside ``with``, measures; afterwards ``share`` is the part of the time that was waited, 0 to 1.

    Args:
        threads: how many threads compute at once.
    """

    def __init__(self, threads: int | None) -> None:
        self._threads = max(1, threads or 1)
        self.share = 0.0

    def __enter__(self) -> Contention:
        self._waited, self._started = waited_s(), time.perf_counter()
        return self

    def __exit__(self, *_: object) -> None:
        passed = (time.perf_counter() - self._started) * self._threads
        # A thread that ends takes its count along, so the sum may shrink.
        self.share = min(max(waited_s() - self._waited, 0.0) / passed, 0.99) if passed > 0 else 0.0
