"""Wakes those who wait for something to happen, in this process. Others, in other servers, look again each second."""

from __future__ import annotations

import asyncio
import threading
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager, suppress

WORK = "work"
"""The topic of queued jobs. That of a job, of its events and state, is its id; other rooms have topics of their own."""


class Ear:
    """Hears one topic, from when it was made: look at the database after that, then wait, and nothing is missed."""

    def __init__(self) -> None:
        self._rung = threading.Event()
        self._lock = threading.Lock()
        self._waiter: tuple[asyncio.AbstractEventLoop, asyncio.Event] | None = None

    def heard(self, timeout: float) -> bool:
        """Wait up to ``timeout`` seconds; whether it rang since the last call."""
        rang = self._rung.wait(timeout)
        self._rung.clear()
        return rang

    async def heard_async(self, timeout: float) -> bool:
        """As ``heard``, of a coroutine: no thread waits."""
        with self._lock:
            woken = asyncio.Event()
            self._waiter = (asyncio.get_running_loop(), woken)
            if self._rung.is_set():
                woken.set()
        with suppress(TimeoutError):  # no bell rang, so the queue is looked at
            await asyncio.wait_for(woken.wait(), timeout)
        with self._lock:
            self._waiter = None
        rang = self._rung.is_set()
        self._rung.clear()
        return rang

    def ring(self) -> None:
        """Wake who waits, or the next who does."""
        with self._lock:
            self._rung.set()
            if self._waiter is not None:
                loop, woken = self._waiter
                with suppress(RuntimeError):  # the loop was closed
                    loop.call_soon_threadsafe(woken.set)


class Bell:
    """Rings topics. Rung after what happened is in the database. Any thread may ring and listen."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._ears: defaultdict[str, set[Ear]] = defaultdict(set)

    @contextmanager
    def listen(self, topic: str) -> Iterator[Ear]:
        """An ear for a topic, until the block ends."""
        ear = Ear()
        with self._lock:
            self._ears[topic].add(ear)
        try:
            yield ear
        finally:
            with self._lock:
                self._ears[topic].discard(ear)
                if not self._ears[topic]:
                    del self._ears[topic]

    def ring(self, topic: str) -> None:
        """Wake all who listen to a topic."""
        with self._lock:
            ears = list(self._ears.get(topic, ()))
        for ear in ears:
            ear.ring()

    def ring_all(self) -> None:
        """Wake everybody, for instance because the server stops."""
        with self._lock:
            ears = [ear for those in self._ears.values() for ear in those]
        for ear in ears:
            ear.ring()
