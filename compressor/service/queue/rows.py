"""Rows of jobs as records, and rows that are locked to be written to."""

from __future__ import annotations

import hmac
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, Row, literal_column, select
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.orm import InstrumentedAttribute, Session, load_only

from compressor.service.database.tables import EventRow, FileRow, JobRow, ProjectRow, UploadRow
from compressor.service.errors import NotFoundError, StaleLeaseError
from compressor.service.queue.texts import cleaned
from compressor.service.records import (
    QUEUED,
    RUNNING,
    FileRecord,
    JobRecord,
    JobSummary,
    UploadRecord,
)

#: Written into the statement, not bound: only then do databases see that an index of these jobs alone will do.
IS_QUEUED: ColumnElement[str] = literal_column(f"'{QUEUED}'")
IS_RUNNING: ColumnElement[str] = literal_column(f"'{RUNNING}'")

_SUMMARY = tuple(JobSummary.__dataclass_fields__)
SUMMARY_COLUMNS: tuple[InstrumentedAttribute[Any], ...] = tuple(getattr(JobRow, name) for name in _SUMMARY)


def summary_of(row: Row[Any]) -> JobSummary:
    """Of a row with ``SUMMARY_COLUMNS``."""
    values = dict(zip(_SUMMARY, row, strict=True))
    return JobSummary(**{**values, "labels": tuple(values["labels"])})


def record_of(row: JobRow, *, created: bool = True) -> JobRecord:
    """All of a job."""
    return JobRecord(
        **{name: getattr(row, name) for name in _SUMMARY if name != "labels"},
        labels=tuple(row.labels),
        recipe=row.recipe,
        recipe_text=row.recipe_text,
        idempotency_key=row.idempotency_key,
        uploads=tuple(row.uploads),
        not_before=row.not_before,
        lease_expires_at=row.lease_expires_at,
        created=created,
    )


def upload_of(row: UploadRow) -> UploadRecord:
    """An upload as it is handed out."""
    return UploadRecord(**{name: getattr(row, name) for name in UploadRecord.__dataclass_fields__})


def files_of(session: Session, job_id: str) -> tuple[FileRecord, ...]:
    """The files of a job by path."""
    columns = FileRow.path, FileRow.sha256, FileRow.bytes
    found = session.execute(select(*columns).where(FileRow.job_id == job_id).order_by(FileRow.path))
    return tuple(FileRecord(*row) for row in found)


def no_job(job_id: str) -> NotFoundError:
    """What is said of a job that is not there, and of another project's."""
    return NotFoundError(f"There is no job {cleaned(job_id)[:40]!r} here; the list of jobs has those that are.")


def locked(session: Session, job_id: str, project: str | None = None) -> JobRow:
    """A job that nobody else changes until the transaction ends. Raises ``NotFoundError``."""
    row = session.scalar(select(JobRow).where(JobRow.id == cleaned(job_id)).with_for_update())
    if row is None or (project is not None and row.project != project):
        raise no_job(job_id)
    return row


def fenced(session: Session, job_id: str, token: str, *, whole: bool = False) -> JobRow:
    """The job that a worker holds, locked. Without ``whole`` its recipe is read only where it is looked at.

    Raises:
        StaleLeaseError: the token is not that of its present lease.
        NotFoundError: it is gone.
    """
    query = select(JobRow).where(JobRow.id == cleaned(job_id)).with_for_update()
    if not whole:
        query = query.options(load_only(JobRow.id, JobRow.state, JobRow.lease_token, JobRow.attempt, JobRow.project))
    row = session.scalar(query)
    if row is None:
        raise no_job(job_id)
    if row.state != RUNNING or not is_token(row, token):
        raise stale(job_id)
    return row


def is_token(row: JobRow, token: str) -> bool:
    """Whether a worker's token is the job's."""
    return hmac.compare_digest((row.lease_token or "").encode(), token.encode("utf-8", "replace")) and bool(token)


def stale(job_id: str) -> StaleLeaseError:
    """What a worker is told that has the job no longer."""
    return StaleLeaseError(
        f"The lease on job {job_id} is over: it ran out, was given back, or the job has ended. Stop working on it."
    )


def note(session: Session, row: JobRow, now: datetime, kind: str, body: dict[str, Any]) -> None:
    """An event of the queue itself. The job is locked."""
    event = {"job_id": row.id, "attempt": row.attempt, "number": None, "time": now, "kind": kind, "body": body}
    session.connection().execute(EventRow.__table__.insert(), event)  # type: ignore[attr-defined]


def insert_into(session: Session, table: type[Any]) -> Any:
    """An INSERT with ``on_conflict_do_nothing`` and the like, which both databases have."""
    made = sqlite.insert if session.get_bind().dialect.name == "sqlite" else postgresql.insert
    return made(table.__table__)


def lock_project(session: Session, name: str, now: datetime) -> None:
    """Make the project if it is not there. What counts its jobs or bytes takes turns with others that do."""
    query = select(ProjectRow.name).where(ProjectRow.name == name).with_for_update()
    if session.scalar(query) is None:
        values = {"name": name, "created_at": now}
        session.connection().execute(insert_into(session, ProjectRow).on_conflict_do_nothing(), values)
        session.scalar(query)
