"""The audit log: who did what, to which subject, when."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import select

from compressor.service.clock import Clock
from compressor.service.database.engine import Database
from compressor.service.database.tables import AuditRow

#: Letters of a text that somebody else chose, at most.
LONGEST = 300


@dataclass(frozen=True)
class AuditRecord:
    """An entry. ``action`` is ``noun.verb``, such as ``job.submit``; ``subject`` is the id of what it was done to."""

    id: int
    time: datetime
    who: str
    action: str
    subject: str | None
    project: str | None
    details: Mapping[str, Any]


def audit_row(
    time: datetime, who: str, action: str, subject: str | None, project: str | None, details: Mapping[str, Any]
) -> AuditRow:
    """An entry to be written with what it tells of, in one transaction."""
    return AuditRow(
        time=time,
        who=who[:LONGEST],
        action=action[:LONGEST],
        subject=subject and subject[:LONGEST],
        project=project,
        details=dict(details),
    )


class Audit:
    """The entries of a database. They are only ever added to."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database, self._clock = database, clock

    def record(
        self,
        who: str,
        action: str,
        subject: str | None = None,
        project: str | None = None,
        details: Mapping[str, Any] | None = None,
    ) -> None:
        """Add an entry."""
        row = audit_row(self._clock.now(), who, action, subject, project, details or {})
        with self._database.begin(write=True) as session:
            session.add(row)

    def entries(self, *, project: str | None = None, before: int | None = None, limit: int = 100) -> list[AuditRecord]:
        """The latest entries first.

        Args:
            project: Only what was done in it; None: everything.
            before: Only entries with smaller ids, to go on where a list ended.
            limit: So many at most.
        """
        wanted = select(AuditRow).order_by(AuditRow.id.desc()).limit(limit)
        if project is not None:
            wanted = wanted.where(AuditRow.project == project)
        if before is not None:
            wanted = wanted.where(AuditRow.id < before)
        with self._database.begin(write=False) as session:
            return [
                AuditRecord(r.id, r.time, r.who, r.action, r.subject, r.project, r.details)
                for r in session.scalars(wanted)
            ]
