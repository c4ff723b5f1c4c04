"""What happens in jobs, kept in the order in which it came."""

from __future__ import annotations

from collections.abc import Sequence

from compressor.service.clock import Clock
from compressor.service.database.engine import Database
from compressor.service.queue.bell import Bell
from compressor.service.records import EventRecord, NewEvent


class EventLog:
    """Events of jobs. The queue adds its own: ``state`` and, as the last of each run, ``end`` (see ``records``)."""

    def __init__(self, database: Database, clock: Clock, bell: Bell) -> None:
        raise NotImplementedError

    def append(self, job_id: str, token: str, events: Sequence[NewEvent]) -> int:
        """Store a batch, and return the id of the job's last event. What is stored already (by attempt and number) is
        left out. Raises ``StaleLeaseError``."""
        raise NotImplementedError

    def after(self, job_id: str, last: int = 0, limit: int = 500) -> list[EventRecord]:
        """The next events after the id ``last``, at most ``limit``."""
        raise NotImplementedError

    def latest(self, job_id: str, kinds: Sequence[str], limit: int = 1) -> list[EventRecord]:
        """The latest events of these kinds, the newest first."""
        raise NotImplementedError
