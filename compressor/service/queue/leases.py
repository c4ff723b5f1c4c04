"""Leases: which worker has which job, for how long, and what becomes of jobs whose worker is silent."""

from __future__ import annotations

import secrets
import threading
from collections.abc import Collection, Mapping
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import delete, func, or_, select, text, update
from sqlalchemy.orm import Session

from compressor.service.clock import Clock
from compressor.service.database.engine import Database
from compressor.service.database.tables import FileRow, JobRow, UploadRow
from compressor.service.errors import DatabaseAwayError, RefusedError
from compressor.service.queue.bell import WORK, Bell
from compressor.service.queue.next_job import next_job
from compressor.service.queue.rows import (
    IS_RUNNING,
    fenced,
    files_of,
    is_token,
    locked,
    note,
    record_of,
    stale,
    upload_of,
)
from compressor.service.queue.texts import cleaned, cleaned_json, require_text, whole
from compressor.service.queue.workers import register
from compressor.service.records import (
    CANCELLED,
    DONE,
    END_EVENT,
    ENDED,
    FAILED,
    QUEUED,
    RUNNING,
    STATE_EVENT,
    Claim,
    JobRecord,
    UploadRecord,
)
from compressor.service.settings import ServiceSettings

LONGEST_DELAY_S = 60.0
"""The longest that a job waits after its worker died."""
_LIMITS_LOCK = 0x636F6D70


class Leases:
    """The worker's side of the queue. Every write carries the token of the lease; with a token that is not the job's
    present one nothing is written (``StaleLeaseError``)."""

    def __init__(self, database: Database, settings: ServiceSettings, clock: Clock, bell: Bell) -> None:
        self._database, self._settings, self._clock, self._bell = database, settings, clock, bell
        self._lock = threading.Lock()
        #: Of each lease: its token and time as they are, and since when they have been by the monotonic clock.
        self._seen: dict[str, tuple[tuple[str | None, datetime | None], float]] = {}

    def claim(
        self, worker: str, labels: Collection[str] = (), version: str = "", project: str | None = None
    ) -> Claim | None:
        """The next job, if there is one: the highest priority, then the oldest. Only jobs whose labels are all among
        the worker's, and of projects that run fewer than ``most_running``; of one project where one is named."""
        require_text("worker's name", worker, 200, empty=False)
        now, most = self._clock.now(), self._settings.most_running
        able = sorted(set(map(cleaned, labels)))
        if self._database.is_sqlite:  # workers that wait ask often, and must hold up no writer
            with self._database.begin(write=False) as session:
                if session.scalar(select(next_job(session, able, most, now, project))) is None:
                    return None
        token = secrets.token_urlsafe(24)
        with self._database.begin() as session:
            if most is not None and not self._database.is_sqlite:
                # Two claims that each see room for one job would take two.
                session.execute(text(f"SELECT pg_advisory_xact_lock({_LIMITS_LOCK})"))
            row = session.scalar(
                update(JobRow)
                .where(JobRow.id == next_job(session, able, most, now, project))
                .values(
                    state=RUNNING,
                    worker=worker,
                    attempt=JobRow.attempt + 1,
                    started_at=func.coalesce(JobRow.started_at, now),
                    lease_token=token,
                    lease_expires_at=now + timedelta(seconds=self._settings.lease_seconds),
                    not_before=None,
                    stage=None,
                    done=None,
                    total=None,
                    waiting_for=None,
                )
                .returning(JobRow)
                .execution_options(synchronize_session=False)
            )
            if row is None:
                return None
            note(session, row, now, STATE_EVENT, {"state": RUNNING, "worker": worker, "attempt": row.attempt})
            register(session, worker, labels, version, row.id, now)
            claim = Claim(
                job=record_of(row),
                token=token,
                lease_seconds=self._settings.lease_seconds,
                files=files_of(session, row.id),
                uploads=_uploads_of(session, row.uploads),
                parent_files=files_of(session, row.parent) if row.parent else (),
            )
        self._bell.ring(claim.job.id)
        return claim

    def renew(
        self,
        job_id: str,
        token: str,
        *,
        stage: str | None = None,
        done: int | None = None,
        total: int | None = None,
        waiting_for: str | None = None,
    ) -> bool:
        """The worker lives, and is here. Whether the job is to be cancelled."""
        expires = self._clock.now() + timedelta(seconds=self._settings.lease_seconds)
        with self._database.begin() as session:
            cancel = session.scalar(
                update(JobRow)
                .where(JobRow.id == cleaned(job_id), JobRow.lease_token == cleaned(token), JobRow.state == IS_RUNNING)
                .values(
                    lease_expires_at=expires,
                    stage=None if stage is None else cleaned(stage)[:200],
                    done=whole(done),
                    total=whole(total),
                    waiting_for=None if waiting_for is None else cleaned(waiting_for)[:500],
                )
                .returning(JobRow.cancel_requested)
                .execution_options(synchronize_session=False)
            )
            if cancel is None:
                fenced(session, job_id, token)
                raise stale(job_id)
        self._bell.ring(job_id)
        return bool(cancel)

    def end(self, job_id: str, token: str, state: str, error: Mapping[str, Any] | None = None) -> JobRecord:
        """The job is ``done``, ``failed`` or ``cancelled``. The same again with the same token is harmless.

        Args:
            error: ``{"kind", "text", "exit_code"}`` of a failed one.
        """
        if state not in ENDED:
            raise RefusedError(f"A job ends as {', '.join(ENDED)}, not as {cleaned(state)[:40]!r}.")
        now = self._clock.now()
        with self._database.begin() as session:
            row = locked(session, job_id)
            if row.state == state and is_token(row, token):
                return record_of(row)
            row = fenced(session, job_id, token, whole=True)
            self._close(session, row, now, state, None if error is None else cleaned_json(error))
            record = record_of(row)
        self._rang(record)
        return record

    def release(self, job_id: str, token: str) -> JobRecord:
        """The worker gives the job back unharmed: it is queued again (or cancelled, if that was asked for)."""
        now = self._clock.now()
        with self._database.begin() as session:
            row = fenced(session, job_id, token, whole=True)
            if row.cancel_requested:
                self._close(session, row, now, CANCELLED, None)
            else:
                self._queue(session, row, now, f"worker {row.worker} gave it back", 0.0)
            record = record_of(row)
        self._rang(record)
        return record

    def check(self, job_id: str, token: str) -> None:
        """Raises ``StaleLeaseError`` unless the token is that of the job's present lease."""
        with self._database.begin(write=False) as session:
            row = session.execute(select(JobRow.state, JobRow.lease_token).where(JobRow.id == cleaned(job_id))).first()
        if (
            row is None
            or row.state != RUNNING
            or not secrets.compare_digest((row.lease_token or "").encode(), token.encode("utf-8", "replace"))
        ):
            raise stale(job_id)

    def expire(self) -> list[JobRecord]:
        """Take jobs from workers that were silent: queued again, or failed after ``most_attempts`` deaths.

        A lease has run out if it is past its time by the wall clock and was not renewed for ``lease_seconds`` by the
        monotonic clock of this server, so the first call sees all leases for the first time. Where the wall clock was
        set back, twice ``lease_seconds`` of silence are enough. To be called every few seconds (``Keeper`` does).
        """
        try:
            late = self._late()
        except DatabaseAwayError:
            self.forget()  # workers could not renew either
            raise
        taken = [record for job_id, lease in late if (record := self._take(job_id, *lease)) is not None]
        for record in taken:
            self._rang(record)
        return taken

    def forget(self) -> None:
        """Give every lease its full time anew: this server was not there to hear renewals."""
        with self._lock:
            self._seen.clear()

    def _late(self) -> list[tuple[str, tuple[str | None, datetime | None]]]:
        columns = JobRow.id, JobRow.lease_token, JobRow.lease_expires_at
        with self._database.begin(write=False) as session:
            running = session.execute(select(*columns).where(JobRow.state == IS_RUNNING)).all()
        now, moment, lease = self._clock.now(), self._clock.monotonic(), self._settings.lease_seconds
        late = []
        with self._lock:
            before, self._seen = self._seen, {}
            for job_id, token, expires in running:
                known, since = before.get(job_id, (None, moment))
                if known != (token, expires):
                    since = moment
                self._seen[job_id] = (token, expires), since
                silent = moment - since
                if silent >= lease and (expires is None or expires <= now or silent >= 2 * lease):
                    late.append((job_id, (token, expires)))
        return late

    def _take(self, job_id: str, token: str | None, expires: datetime | None) -> JobRecord | None:
        """Take a job from its worker, unless it was renewed or ended meanwhile."""
        now = self._clock.now()
        with self._database.begin() as session:
            row = session.scalar(
                select(JobRow)
                .where(
                    JobRow.id == job_id,
                    JobRow.state == IS_RUNNING,
                    JobRow.lease_token == token,
                    JobRow.lease_expires_at == expires,
                )
                .with_for_update()
            )
            if row is None:
                return None
            row.deaths += 1
            if row.cancel_requested:
                self._close(session, row, now, CANCELLED, None)
            elif row.deaths >= self._settings.most_attempts:
                times = "once" if row.deaths == 1 else f"{row.deaths} times"
                why = (
                    f"The worker died {times}, last {row.worker}; the job may need more memory than workers have. "
                    "Retry it to go on from its last stage."
                )
                self._close(session, row, now, FAILED, {"kind": "WorkerDied", "text": why, "exit_code": 1})
            else:
                delay = 0.0 if row.deaths == 1 else min(LONGEST_DELAY_S, 2.0**row.deaths)
                self._queue(session, row, now, f"worker {row.worker} was silent", delay)
            return record_of(row)

    def _close(self, session: Session, row: JobRow, now: datetime, state: str, error: dict[str, Any] | None) -> None:
        row.state, row.ended_at, row.error = state, now, error
        row.lease_expires_at = row.not_before = row.waiting_for = None
        if state == DONE:
            _drop_stages(session, row.id)
        note(session, row, now, END_EVENT, {"state": state, "error": error})

    def _queue(self, session: Session, row: JobRow, now: datetime, why: str, delay: float) -> None:
        row.state, row.lease_token, row.lease_expires_at, row.waiting_for = QUEUED, None, None, None
        row.not_before = now + timedelta(seconds=delay) if delay else None
        note(session, row, now, STATE_EVENT, {"state": QUEUED, "why": why})

    def _rang(self, record: JobRecord) -> None:
        self._bell.ring(record.id)
        self._bell.ring(WORK)  # it is queued again, or its project may run another


def _drop_stages(session: Session, job_id: str) -> None:
    """Of a job that is done nothing goes on. Until then all of it is kept: its worker may die before it can tell."""
    hidden = or_(FileRow.path.startswith(".", autoescape=True), FileRow.path.contains("/.", autoescape=True))
    found = delete(FileRow).where(FileRow.job_id == job_id, hidden)
    session.execute(found.execution_options(synchronize_session=False))


def _uploads_of(session: Session, ids: Collection[str]) -> tuple[UploadRecord, ...]:
    found = session.scalars(select(UploadRow).where(UploadRow.id.in_(list(ids)))) if ids else ()
    return tuple(map(upload_of, found))
