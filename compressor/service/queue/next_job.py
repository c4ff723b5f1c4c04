"""Which job is next: one statement, so that two workers never get the same."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import ColumnElement, ScalarSelect, cast, func, literal, or_, select
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import Session, aliased

from compressor.service.database.tables import JobRow
from compressor.service.queue.rows import IS_QUEUED, IS_RUNNING

_LONGEST_DELAY = timedelta(minutes=2)
#: Made once: that takes longer than the statement they stand in.
_JOB, _OTHER = aliased(JobRow), aliased(JobRow)


def next_job(
    session: Session, labels: list[str], most_running: int | None, now: datetime, project: str | None = None
) -> ScalarSelect[str]:
    """The id of the next job for a worker with these labels, as a subquery. On Postgres its row is locked, and rows
    that others have locked are passed over; on SQLite the transaction has the database to itself."""
    job, other = _JOB, _OTHER
    # A time that lies too far ahead is that of a clock that was set back since.
    is_due = or_(job.not_before.is_(None), job.not_before <= now, job.not_before > now + _LONGEST_DELAY)
    query = select(job.id).where(job.state == IS_QUEUED, is_due, _within(session, job, labels))
    if project is not None:
        query = query.where(job.project == project)
    if most_running is not None:
        full = (
            select(other.project)
            .where(other.state == IS_RUNNING)
            .group_by(other.project)
            .having(func.count() >= most_running)
        )
        query = query.where(job.project.not_in(full))
    query = query.order_by(job.priority.desc(), job.created_at, job.id).limit(1)
    return query.with_for_update(skip_locked=True, of=job).scalar_subquery()


def _within(session: Session, job: Any, labels: list[str]) -> ColumnElement[bool]:
    """Whether all labels of the job are among these."""
    if session.get_bind().dialect.name == "postgresql":
        is_within: ColumnElement[bool] = cast(job.labels, JSONB).contained_by(cast(labels, JSONB))
        return is_within
    if not labels:
        return func.json_array_length(job.labels) == 0
    each = func.json_each(job.labels).table_valued("value", name="label")
    return ~select(literal(1)).select_from(each).where(each.c.value.not_in(labels)).exists()
