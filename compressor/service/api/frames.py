"""Events as they go over the wire, read and written once for all who watch the same job."""

from __future__ import annotations

import asyncio
import json
from collections import OrderedDict
from dataclasses import dataclass

from compressor.printable import printable_json
from compressor.service.api.documents import event_data
from compressor.service.api.threads import in_thread
from compressor.service.records import END_EVENT, EventRecord
from compressor.service.services import Services

BATCH = 200
REMEMBERED = 64
Key = tuple[str, int]


@dataclass(frozen=True)
class Batch:
    """Events that follow one another. ``last`` is the id of the last; ``ends``: that is the event ``end``."""

    data: bytes
    last: int
    ends: bool
    is_full: bool


class Frames:
    """What follows an event, for those who watch.

    Events are only ever added, so what once followed an event follows it for good, and may be handed out again; whoever
    got it asks for what follows its last one. What is not there yet is not kept.
    """

    def __init__(self, services: Services) -> None:
        self._services = services
        self._known: OrderedDict[Key, Batch] = OrderedDict()
        self._pending: dict[Key, asyncio.Task[Batch | None]] = {}

    async def after(self, job_id: str, last: int) -> Batch | None:
        """The next events, or None where there are none by now. Raises ``DatabaseAwayError``."""
        key = (job_id, last)
        if (known := self._known.get(key)) is not None:
            self._known.move_to_end(key)
            return known
        joined = key in self._pending
        found = await self._read(key)
        if found is None and joined:  # that look may have been a moment too early for who joined it
            found = await self._read(key)
        return found

    async def _read(self, key: Key) -> Batch | None:
        task = self._pending.get(key)
        if task is None:
            task = asyncio.create_task(self._look(key))
            self._pending[key] = task
            task.add_done_callback(lambda done: self._done(key, done))
        return await asyncio.shield(task)  # who goes away does not take it from others

    async def _look(self, key: Key) -> Batch | None:
        found = await in_thread(self._batch, key)
        if found is not None:
            self._known[key] = found
            while len(self._known) > REMEMBERED:
                self._known.popitem(last=False)
        return found

    def _batch(self, key: Key) -> Batch | None:
        events = self._services.events.after(*key, BATCH)
        if not events:
            return None
        data = b"".join(frame(event) for event in events)
        return Batch(data, events[-1].id, events[-1].kind == END_EVENT, len(events) == BATCH)

    def _done(self, key: Key, task: asyncio.Task[Batch | None]) -> None:
        self._pending.pop(key, None)
        if not task.cancelled():
            task.exception()  # whoever waits has it; nobody left is no reason for a line in the log


def frame(event: EventRecord) -> bytes:
    """An event as HTML's standard for server-sent events has it, on lines of its own."""
    kind = "".join(sign for sign in event.kind if sign.isprintable())[:100] or "message"
    data = printable_json(json.dumps(event_data(event), ensure_ascii=False, allow_nan=False, separators=(",", ":")))
    return f"id: {event.id}\nevent: {kind}\ndata: {data}\n\n".encode()
