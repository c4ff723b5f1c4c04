"""What happens in jobs, kept in the order in which it came."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import func, select

from compressor.service.clock import Clock
from compressor.service.database.engine import Database
from compressor.service.database.tables import EventRow
from compressor.service.errors import RefusedError
from compressor.service.queue.bell import Bell
from compressor.service.queue.rows import fenced, insert_into
from compressor.service.queue.texts import cleaned, cleaned_json
from compressor.service.records import END_EVENT, STATE_EVENT, EventRecord, NewEvent

MOST_EVENTS = 1000
"""Events in a batch."""
_LARGEST_ID = 2**63 - 1
_MOST_NUMBER = 2**31 - 1
_COLUMNS = tuple(getattr(EventRow, name) for name in EventRecord.__dataclass_fields__)


class EventLog:
    """Events of jobs. The queue adds its own: ``state`` and, as the last of each run, ``end`` (see ``records``)."""

    def __init__(self, database: Database, clock: Clock, bell: Bell) -> None:
        self._database, self._clock, self._bell = database, clock, bell

    def append(self, job_id: str, token: str, events: Sequence[NewEvent]) -> int:
        """Store a batch, and return the id of the job's last event. What is stored already (by attempt and number) is
        left out.

        Raises:
            StaleLeaseError: another worker has the job.
            RefusedError: too many at once, a number or kind that no event of a worker has.
        """
        rows = _rows(events)
        with self._database.begin() as session:
            # The job's row is locked first, so ids become visible in the order in which they are given.
            job = fenced(session, job_id, token)
            for row in rows:
                row["job_id"], row["attempt"] = job.id, job.attempt
            if rows:
                insert = insert_into(session, EventRow).on_conflict_do_nothing(
                    index_elements=["job_id", "attempt", "number"]
                )
                session.connection().execute(insert, rows)
            last = session.scalar(select(func.max(EventRow.id)).where(EventRow.job_id == job.id)) or 0
        self._bell.ring(job_id)
        return last

    def after(self, job_id: str, last: int = 0, limit: int = 500) -> list[EventRecord]:
        """The next events after the id ``last``, at most ``limit``."""
        last, limit = max(0, min(last, _LARGEST_ID)), max(1, min(limit, 5000))
        query = select(*_COLUMNS).where(EventRow.job_id == cleaned(job_id), EventRow.id > last)
        with self._database.begin(write=False) as session:
            return [EventRecord(*row) for row in session.execute(query.order_by(EventRow.id).limit(limit))]

    def latest(self, job_id: str, kinds: Sequence[str], limit: int = 1) -> list[EventRecord]:
        """The latest events of these kinds, the newest first."""
        query = select(*_COLUMNS).where(EventRow.job_id == cleaned(job_id), EventRow.kind.in_(kinds))
        with self._database.begin(write=False) as session:
            return [EventRecord(*row) for row in session.execute(query.order_by(EventRow.id.desc()).limit(limit))]


def _rows(events: Sequence[NewEvent]) -> list[dict[str, object]]:
    if len(events) > MOST_EVENTS:
        raise RefusedError(f"{len(events):,} events in one batch; send at most {MOST_EVENTS:,} at once.")
    rows: list[dict[str, object]] = []
    for event in events:
        if not 0 <= event.number <= _MOST_NUMBER:
            raise RefusedError(f"An event has the number {event.number}; expected 0 to {_MOST_NUMBER}.")
        if event.kind in (STATE_EVENT, END_EVENT) or not 0 < len(event.kind) <= 100:
            raise RefusedError(f"An event is of the kind {event.kind[:40]!r}, which no worker sends.")
        if event.time.tzinfo is None:
            raise RefusedError(f"Event {event.number} has a time without a zone.")
        rows.append(
            {
                "number": event.number,
                "time": event.time,
                "kind": cleaned(event.kind),
                "body": cleaned_json(event.body),
            }
        )
    return rows
