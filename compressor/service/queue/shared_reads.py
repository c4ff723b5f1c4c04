"""Reads that many ask for at the same moment, such as those who watch one job: done once."""

from __future__ import annotations

import threading
from collections.abc import Callable, Hashable
from concurrent.futures import Future
from typing import Generic, TypeVar

Item = TypeVar("Item")

_MOST = 4  # those who watch a job are at its end, or read it from its start


class SharedReads(Generic[Item]):
    """Shares lists that only ever grow at their end, read by key.

    What is shared may be a moment old, which is right for items that are there: none of them changes. That nothing is
    there is never shared: whoever is told so has asked the database itself, after the call began.

    Args:
        seconds: how long a list that is not empty serves others, too.
        monotonic: the clock for that.
    """

    def __init__(self, seconds: float, monotonic: Callable[[], float]) -> None:
        self._seconds, self._monotonic = seconds, monotonic
        self._lock = threading.Lock()
        self._pending: dict[Hashable, Future[list[Item]]] = {}
        self._recent: dict[Hashable, tuple[float, list[Item]]] = {}

    def get(self, key: Hashable, read: Callable[[], list[Item]]) -> list[Item]:
        """What ``read`` gives, now or to somebody else a moment ago. Nobody may change the list."""
        with self._lock:
            since, recent = self._recent.get(key, (0.0, []))
            if recent and 0 <= self._monotonic() - since < self._seconds:
                return recent
            others = self._pending.get(key)
            own: Future[list[Item]] = Future()
            if others is None:
                self._pending[key] = own
        if others is not None:
            return others.result() or read()
        try:
            found = read()
        except BaseException as error:
            own.set_exception(error)
            raise
        else:
            own.set_result(found)
        finally:
            with self._lock:
                del self._pending[key]
        if found:
            with self._lock:
                while len(self._recent) >= _MOST:
                    del self._recent[next(iter(self._recent))]
                self._recent[key] = self._monotonic(), found
        return found
