"""Jobs as users see them: submitted, listed, cancelled, retried, deleted."""

from __future__ import annotations

import builtins
from collections.abc import Collection
from typing import Any

from sqlalchemy import ColumnElement, delete, func, or_, select
from sqlalchemy.orm import Session

from compressor.service.artefacts.quota import require_room
from compressor.service.clock import Clock
from compressor.service.database.base import new_id
from compressor.service.database.engine import Database
from compressor.service.database.tables import JobRow, UploadRow
from compressor.service.errors import ConflictError, NotFoundError, RefusedError, TooManyError
from compressor.service.queue.bell import WORK, Bell
from compressor.service.queue.rows import (
    SUMMARY_COLUMNS,
    lock_project,
    locked,
    no_job,
    note,
    record_of,
    summary_of,
)
from compressor.service.queue.texts import cleaned, cleaned_json, require_text
from compressor.service.records import (
    CANCELLED,
    END_EVENT,
    ENDED,
    FAILED,
    JOB_KINDS,
    QUEUED,
    RUNNING,
    STATE_EVENT,
    STATES,
    JobRecord,
    JobSummary,
    NewJob,
)
from compressor.service.settings import ServiceSettings

MOST_PRIORITY = 1000
_MOST_LISTED = 1000


class Jobs:
    """The table of jobs. Where a ``project`` is given, jobs of others are not found (``NotFoundError``)."""

    def __init__(self, database: Database, settings: ServiceSettings, clock: Clock, bell: Bell) -> None:
        self._database, self._settings, self._clock, self._bell = database, settings, clock, bell

    def submit(self, job: NewJob) -> JobRecord:
        """Queue a job; or the job that the same idempotency key made before, with ``created`` False.

        Raises:
            RefusedError: a name, key or priority that cannot be stored.
            ConflictError: the key was used for another recipe.
            NotFoundError: an upload or the parent is none of the project's.
            TooManyError: ``most_queued`` jobs of the project are queued.
            QuotaError: the project has stored as much as it may.
        """
        row = self._row(job)
        with self._database.begin() as session:
            lock_project(session, job.project, row.created_at)
            earlier = _earlier(session, job)
            if earlier is not None:
                if not _is_same(earlier, row):
                    raise ConflictError(
                        f"The idempotency key {job.idempotency_key!r} was used for another recipe, that of job "
                        f"{earlier.id}; use a new key for a new job."
                    )
                return record_of(earlier, created=False)
            self._require_place(session, job.project)
            _require_inputs(session, job)
            require_room(session, job.project, 0, self._settings.storage_bytes)
            session.add(row)
            session.flush()
            record = record_of(row)
        self._bell.ring(WORK)
        return record

    def get(self, job_id: str, project: str | None = None) -> JobRecord:
        """A job. Raises ``NotFoundError``."""
        with self._database.begin(write=False) as session:
            row = session.get(JobRow, cleaned(job_id))
            if row is None or (project is not None and row.project != project):
                raise no_job(job_id)
            return record_of(row)

    def list(
        self,
        project: str | None = None,
        states: Collection[str] = (),
        query: str = "",
        before: str | None = None,
        limit: int = 50,
    ) -> builtins.list[JobSummary]:
        """Jobs, the newest first: at most ``limit``, with ids before ``before``.

        Args:
            states: any of these; none for all.
            query: part of the name, the start of the id, or the submitter.

        Raises:
            RefusedError: an unknown state.
        """
        for state in states:
            if state not in STATES:
                raise RefusedError(f"The state {cleaned(state)[:40]!r} is unknown; expected {', '.join(STATES)}.")
        limit = max(1, min(limit, _MOST_LISTED))
        wanted = [] if project is None else [JobRow.project == cleaned(project)]
        if before is not None:
            wanted.append(JobRow.id < cleaned(before))
        if query.strip():
            wanted.append(_matches(cleaned(query.strip())))
        select_them = select(*SUMMARY_COLUMNS).where(*wanted).order_by(JobRow.id.desc()).limit(limit)
        with self._database.begin(write=False) as session:
            if not states:
                return [summary_of(row) for row in session.execute(select_them)]
            # One index lookup for each state: over several, databases would sort all jobs that are in one of them.
            found = [
                row for state in set(states) for row in session.execute(select_them.where(JobRow.state == state)).all()
            ]
        found.sort(key=lambda row: row.id, reverse=True)
        return [summary_of(row) for row in found[:limit]]

    def counts(self, project: str | None = None) -> dict[str, int]:
        """How many jobs are in each state; every state is there."""
        query = select(JobRow.state, func.count()).group_by(JobRow.state)
        if project is not None:
            query = query.where(JobRow.project == cleaned(project))
        with self._database.begin(write=False) as session:
            found = {row[0]: row[1] for row in session.execute(query)}
        return {state: found.get(state, 0) for state in STATES}

    def cancel(self, job_id: str, project: str | None = None) -> JobRecord:
        """Cancel a queued job at once, and ask the worker of a running one to stop. Again is harmless.

        Raises:
            ConflictError: it is done, or failed.
        """
        now = self._clock.now()
        with self._database.begin() as session:
            row = locked(session, job_id, project)
            if row.state == QUEUED:
                row.state, row.ended_at, row.cancel_requested, row.waiting_for = CANCELLED, now, True, None
                note(session, row, now, END_EVENT, {"state": CANCELLED, "error": None})
            elif row.state == RUNNING and not row.cancel_requested:
                row.cancel_requested = True
                note(session, row, now, STATE_EVENT, {"state": RUNNING, "cancel_requested": True})
            elif row.state not in (RUNNING, CANCELLED):
                raise ConflictError(f"Job {row.id} is {row.state}; only queued and running jobs can be cancelled.")
            record = record_of(row)
        self._bell.ring(record.id)
        return record

    def retry(self, job_id: str, project: str | None = None) -> JobRecord:
        """Queue a failed or cancelled job again. It goes on from its last stage, since its files stay.

        Raises:
            ConflictError: it is in another state.
            TooManyError: the queue is full.
        """
        now = self._clock.now()
        with self._database.begin() as session:
            name = session.scalar(select(JobRow.project).where(JobRow.id == cleaned(job_id)))
            if name is not None:
                lock_project(session, name, now)
            row = locked(session, job_id, project)
            if row.state not in (FAILED, CANCELLED):
                raise ConflictError(f"Job {row.id} is {row.state}; only failed and cancelled jobs can be retried.")
            self._require_place(session, row.project)
            row.state, row.error, row.deaths, row.cancel_requested = QUEUED, None, 0, False
            row.started_at = row.ended_at = row.not_before = row.worker = None
            row.lease_token = row.lease_expires_at = row.stage = row.done = row.total = row.waiting_for = None
            note(session, row, now, STATE_EVENT, {"state": QUEUED, "why": "retried"})
            record = record_of(row)
        self._bell.ring(record.id)
        self._bell.ring(WORK)
        return record

    def set_priority(self, job_id: str, priority: int, project: str | None = None) -> JobRecord:
        """What is higher is taken first. Raises ``ConflictError`` for a job that has ended."""
        _require_priority(priority)
        with self._database.begin() as session:
            row = locked(session, job_id, project)
            if row.state in ENDED:
                raise ConflictError(f"Job {row.id} is {row.state}; its priority says nothing any more.")
            row.priority = priority
            record = record_of(row)
        self._bell.ring(record.id)
        return record

    def delete(self, job_id: str, project: str | None = None) -> None:
        """Delete an ended job with its events and files.

        Raises:
            ConflictError: it has not ended, or a job that has not ended starts from it.
        """
        with self._database.begin() as session:
            row = locked(session, job_id, project)
            if row.state not in ENDED:
                raise ConflictError(f"Job {row.id} is {row.state}; cancel it first.")
            child = session.scalar(
                select(JobRow.id).where(JobRow.parent == row.id, JobRow.state.in_((QUEUED, RUNNING))).limit(1)
            )
            if child is not None:
                raise ConflictError(f"Job {child} starts from job {row.id}; wait until it ends, or cancel it first.")
            session.execute(delete(JobRow).where(JobRow.id == row.id))
            job = row.id
        self._bell.ring(job)

    def _row(self, job: NewJob) -> JobRow:
        if job.kind not in JOB_KINDS:
            raise RefusedError(f"The kind {job.kind!r} is unknown; expected {', '.join(JOB_KINDS)}.")
        _require_priority(job.priority)
        now = self._clock.now()
        return JobRow(
            id=new_id(now),
            project=require_text("project", job.project, 100, empty=False),
            name=require_text("name", job.name, 200),
            kind=job.kind,
            recipe=cleaned_json(job.recipe),
            recipe_text=cleaned(job.recipe_text),
            state=QUEUED,
            priority=job.priority,
            labels=sorted(set(job.labels)),
            submitted_by=cleaned(job.submitted_by)[:200],
            idempotency_key=None
            if job.idempotency_key is None
            else require_text("idempotency key", job.idempotency_key, 200, empty=False),
            created_at=now,
            attempt=0,
            deaths=0,
            cancel_requested=False,
            parent=job.parent,
            uploads=list(dict.fromkeys(job.uploads)),
        )

    def _require_place(self, session: Session, project: str) -> None:
        query = select(func.count()).select_from(JobRow).where(JobRow.project == project, JobRow.state == QUEUED)
        queued = session.scalar(query) or 0
        if queued >= self._settings.most_queued:
            raise TooManyError(
                f"{queued:,} jobs of project {project} are queued, and {self._settings.most_queued:,} are the most; "
                "try again when some have started."
            )


def _require_priority(priority: int) -> None:
    if not -MOST_PRIORITY <= priority <= MOST_PRIORITY:
        raise RefusedError(f"The priority is {priority}; expected {-MOST_PRIORITY} to {MOST_PRIORITY}.")


def _matches(query: str) -> ColumnElement[bool]:
    return or_(
        JobRow.name.icontains(query, autoescape=True),
        JobRow.id.startswith(query, autoescape=True),
        JobRow.submitted_by.icontains(query, autoescape=True),
    )


def _earlier(session: Session, job: NewJob) -> JobRow | None:
    if job.idempotency_key is None:
        return None
    return session.scalar(
        select(JobRow).where(JobRow.project == job.project, JobRow.idempotency_key == job.idempotency_key)
    )


def _is_same(earlier: JobRow, row: JobRow) -> bool:
    def told(job: JobRow) -> tuple[Any, ...]:
        return job.recipe, job.kind, job.parent, job.uploads

    return told(earlier) == told(row)


def _require_inputs(session: Session, job: NewJob) -> None:
    """What the job reads is there, of the same project, and stays: the row is locked against its deletion."""
    if job.parent is not None:
        locked(session, job.parent, job.project)
    for upload in job.uploads:
        query = select(UploadRow).where(UploadRow.id == cleaned(upload), UploadRow.project == job.project)
        row = session.scalar(query.with_for_update())
        if row is None:
            raise NotFoundError(f"There is no upload {cleaned(upload)[:40]!r} in this project; send the file again.")
        if row.state != "done":
            raise ConflictError(f"The upload {row.id} is {row.state}; finish it before a job uses it.")
