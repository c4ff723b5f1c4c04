"""What goes with time: ended jobs, abandoned uploads, contents that nothing refers to."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta

from sqlalchemy import select

from compressor.service.artefacts.base import Store
from compressor.service.artefacts.blobs import GRACE_SECONDS, Blobs
from compressor.service.artefacts.uploads import DONE, OPEN, Uploads, uploads_in_use
from compressor.service.clock import Clock
from compressor.service.database.engine import Database
from compressor.service.database.tables import JobRow, UploadRow
from compressor.service.errors import ConflictError, NotFoundError
from compressor.service.queue.jobs import Jobs
from compressor.service.queue.workers import Workers
from compressor.service.records import ENDED
from compressor.service.settings import ServiceSettings

_IDLE = timedelta(days=2)
_REFUSED = timedelta(days=7)
_WORKERS = timedelta(days=7)
_BATCH = 100
_JUMP_S = 3600.0


@dataclass(frozen=True)
class Removed:
    """How many of each are gone."""

    jobs: int = 0
    uploads: int = 0
    blobs: int = 0
    workers: int = 0


class Retention:
    """Deletes what is past its time."""

    def __init__(
        self,
        database: Database,
        settings: ServiceSettings,
        clock: Clock,
        *,
        jobs: Jobs,
        uploads: Uploads,
        workers: Workers,
        blobs: Blobs,
        store: Store,
    ) -> None:
        self._database, self._settings, self._clock = database, settings, clock
        self._jobs, self._uploads, self._workers, self._blobs, self._store = jobs, uploads, workers, blobs, store
        self._offset = self._wall_offset()

    def sweep(self) -> Removed:
        """Delete ended jobs after ``keep_days``, uploads that nobody goes on with or needs, and then contents.

        Where the wall clock was set since the last sweep nothing is deleted before the next: it may be set right again.
        """
        before, self._offset = self._offset, self._wall_offset()
        if abs(self._offset - before) > _JUMP_S:
            return Removed()
        removed = Removed(
            jobs=self._sweep_jobs(),
            uploads=self._sweep_uploads(),
            blobs=self._blobs.collect_garbage(),
            workers=self._workers.forget(_WORKERS),
        )
        self._store.remove_temporaries(GRACE_SECONDS)
        return removed

    def _wall_offset(self) -> float:
        """Seconds by which the wall clock is ahead of the monotonic one: always the same, until it is set."""
        return self._clock.now().timestamp() - self._clock.monotonic()

    def _sweep_jobs(self) -> int:
        if self._settings.keep_days is None:
            return 0
        before, removed, last = self._clock.now() - timedelta(days=self._settings.keep_days), 0, ""
        while True:
            query = select(JobRow.id).where(JobRow.state.in_(ENDED), JobRow.ended_at < before, JobRow.id > last)
            with self._database.begin(write=False) as session:
                batch = session.scalars(query.order_by(JobRow.id).limit(_BATCH)).all()
            if not batch:
                return removed
            last = batch[-1]
            for job in batch:
                try:
                    self._jobs.delete(job)
                    removed += 1
                except (ConflictError, NotFoundError):  # retried since, needed by another, or gone
                    continue

    def _sweep_uploads(self) -> int:
        now = self._clock.now()
        with self._database.begin(write=False) as session:
            needed = uploads_in_use(session)
            rows = session.execute(select(UploadRow.id, UploadRow.state, UploadRow.created_at)).all()
        keep = None if self._settings.keep_days is None else timedelta(days=self._settings.keep_days)
        gone = []
        for upload, state, created in rows:
            age = now - created
            if state == OPEN:
                is_over = age > _IDLE and self._uploads.idle_seconds(upload) > _IDLE.total_seconds()
            elif state == DONE:
                is_over = keep is not None and age > keep and upload not in needed
            else:
                is_over = age > _REFUSED
            if is_over:
                gone.append(upload)
        removed = 0
        for upload in gone:
            try:
                self._uploads.delete(upload)
                removed += 1
            except (ConflictError, NotFoundError):
                continue
        self._remove_parts({upload for upload, state, _ in rows if state == OPEN})
        return removed

    def _remove_parts(self, known: set[str]) -> None:
        """Chunks of uploads that are no longer open."""
        for part in self._settings.uploads_dir.glob("*.part"):
            if part.stem not in known and self._uploads.idle_seconds(part.stem) > 3600:
                part.unlink(missing_ok=True)
