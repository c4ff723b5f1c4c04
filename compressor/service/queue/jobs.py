"""Jobs as users see them: submitted, listed, cancelled, retried, deleted."""

from __future__ import annotations

from collections.abc import Collection

from compressor.service.clock import Clock
from compressor.service.database.engine import Database
from compressor.service.queue.bell import Bell
from compressor.service.records import JobRecord, JobSummary, NewJob
from compressor.service.settings import ServiceSettings


class Jobs:
    """The table of jobs. Where a ``project`` is given, jobs of others are not found (``NotFoundError``)."""

    def __init__(self, database: Database, settings: ServiceSettings, clock: Clock, bell: Bell) -> None:
        raise NotImplementedError

    def submit(self, job: NewJob) -> JobRecord:
        """Queue a job; or the job that the same idempotency key made before, with ``created`` False.

        Raises:
            ConflictError: the key was used for another recipe.
            NotFoundError: an upload or the parent is none of the project's.
            TooManyError: ``most_queued`` jobs of the project are queued.
            QuotaError: the project has stored as much as it may.
        """
        raise NotImplementedError

    def get(self, job_id: str, project: str | None = None) -> JobRecord:
        """A job. Raises ``NotFoundError``."""
        raise NotImplementedError

    def list(
        self,
        project: str | None = None,
        states: Collection[str] = (),
        query: str = "",
        before: str | None = None,
        limit: int = 50,
    ) -> list[JobSummary]:
        """Jobs, the newest first: at most ``limit``, with ids before ``before``.

        Args:
            states: any of these; none for all.
            query: part of the name, the start of the id, or the submitter.
        """
        raise NotImplementedError

    def counts(self, project: str | None = None) -> dict[str, int]:
        """How many jobs are in each state; every state is there."""
        raise NotImplementedError

    def cancel(self, job_id: str, project: str | None = None) -> JobRecord:
        """Cancel a queued job at once, and ask the worker of a running one to stop. Again is harmless; an ended job
        that was not cancelled is a ``ConflictError``."""
        raise NotImplementedError

    def retry(self, job_id: str, project: str | None = None) -> JobRecord:
        """Queue a failed or cancelled job again. It goes on from its last stage, since its files stay.

        Raises:
            ConflictError: it is in another state.
            TooManyError: the queue is full.
        """
        raise NotImplementedError

    def set_priority(self, job_id: str, priority: int, project: str | None = None) -> JobRecord:
        """What is higher is taken first. Raises ``ConflictError`` for a job that has ended."""
        raise NotImplementedError

    def delete(self, job_id: str, project: str | None = None) -> None:
        """Delete an ended job with its events and files.

        Raises:
            ConflictError: it has not ended, or a job that has not ended starts from it.
        """
        raise NotImplementedError
