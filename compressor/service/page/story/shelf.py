"""Stories of the jobs that are looked at, so that a look reads only the events that are new."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import Protocol, TypeVar

from compressor.service.page.story.story import Story
from compressor.service.records import EventRecord

MOST_STORIES = 64
_PAGE = 1000

T = TypeVar("T")


class Log(Protocol):
    """Where a job's events are read."""

    def after(self, job_id: str, last: int, limit: int) -> Sequence[EventRecord]: ...


class Shelf:
    """Stories by job, the latest looked at; each is read by one thread at a time."""

    def __init__(self, most: int = MOST_STORIES) -> None:
        self._most = most
        self._lock = threading.Lock()
        self._stories: OrderedDict[str, tuple[threading.Lock, Story]] = OrderedDict()

    def look(self, log: Log, job_id: str, see: Callable[[Story], T]) -> T:
        """What ``see`` finds in the story of a job, with all events that there are by now."""
        with self._lock:
            if job_id not in self._stories:
                self._stories[job_id] = (threading.Lock(), Story())
            self._stories.move_to_end(job_id)
            while len(self._stories) > self._most:
                self._stories.popitem(last=False)
            lock, story = self._stories[job_id]
        with lock:
            while events := log.after(job_id, story.last, _PAGE):
                for event in events:
                    story.take(event.id, event.attempt, event.time, event.kind, event.body)
                if len(events) < _PAGE:
                    break
            return see(story)
