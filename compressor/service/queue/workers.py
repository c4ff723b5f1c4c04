"""Workers that were heard of."""

from __future__ import annotations

import builtins
import threading
from collections.abc import Collection
from datetime import datetime, timedelta

from sqlalchemy import delete, select
from sqlalchemy.orm import Session

from compressor.service.clock import Clock
from compressor.service.database.engine import Database
from compressor.service.database.tables import WorkerRow
from compressor.service.queue.rows import insert_into
from compressor.service.queue.texts import cleaned, require_text
from compressor.service.records import WorkerRecord

_EVERY_S = 10.0
_REMEMBERED = 10_000


class Workers:
    """Who works here. A worker is registered by what it does; nothing depends on this table."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database, self._clock = database, clock
        self._lock = threading.Lock()
        self._written: dict[str, tuple[object, float]] = {}

    def seen(self, name: str, labels: Collection[str] = (), version: str = "", job_id: str | None = None) -> None:
        """A worker was heard of. Written at most every few seconds, unless something changed."""
        require_text("worker's name", name, 200, empty=False)
        what, moment = (tuple(sorted(labels)), version, job_id), self._clock.monotonic()
        with self._lock:
            before, when = self._written.get(name, (None, 0.0))
            if before == what and moment - when < _EVERY_S:
                return
            if len(self._written) > _REMEMBERED:
                self._written.clear()
            self._written[name] = what, moment
        with self._database.begin() as session:
            register(session, name, labels, version, job_id, self._clock.now())

    def list(self, within_seconds: float | None = None) -> builtins.list[WorkerRecord]:
        """Workers by name; of the last ``within_seconds`` only, if given: not of the future, where the wall clock was
        before it was set back."""
        query = select(WorkerRow).order_by(WorkerRow.name)
        if within_seconds is not None:
            now, within = self._clock.now(), timedelta(seconds=within_seconds)
            query = query.where(WorkerRow.seen_at.between(now - within, now + within))
        with self._database.begin(write=False) as session:
            return [
                WorkerRecord(row.name, tuple(row.labels), row.version, row.seen_at, row.job_id)
                for row in session.scalars(query)
            ]

    def forget(self, older_than: timedelta) -> int:
        """Drop workers that were not heard of for so long; how many."""
        with self._database.begin() as session:
            gone = session.scalars(
                delete(WorkerRow).where(WorkerRow.seen_at < self._clock.now() - older_than).returning(WorkerRow.name)
            )
            return len(gone.all())


def register(
    session: Session, name: str, labels: Collection[str], version: str, job_id: str | None, now: datetime
) -> None:
    """Write a worker's row."""
    values = {
        "name": name,
        "labels": sorted(map(cleaned, labels)),
        "version": cleaned(version)[:100],
        "seen_at": now,
        "job_id": job_id,
    }
    insert = insert_into(session, WorkerRow)
    update = {key: insert.excluded[key] for key in values if key != "name"}
    session.connection().execute(insert.on_conflict_do_update(index_elements=["name"], set_=update), values)
