"""Leases: which worker has which job, for how long, and what becomes of jobs whose worker is silent."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from compressor.service.clock import Clock
from compressor.service.database.engine import Database
from compressor.service.queue.bell import Bell
from compressor.service.records import Claim, JobRecord
from compressor.service.settings import ServiceSettings


class Leases:
    """The worker's side of the queue. Every write carries the token of the lease; with a token that is not the job's
    present one nothing is written (``StaleLeaseError``)."""

    def __init__(self, database: Database, settings: ServiceSettings, clock: Clock, bell: Bell) -> None:
        raise NotImplementedError

    def claim(self, worker: str, labels: Collection[str] = (), version: str = "") -> Claim | None:
        """The next job, if there is one: the highest priority, then the oldest. Only jobs whose labels are all among the
        worker's, and of projects that run fewer than ``most_running``."""
        raise NotImplementedError

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
        raise NotImplementedError

    def end(self, job_id: str, token: str, state: str, error: Mapping[str, Any] | None = None) -> JobRecord:
        """The job is ``done``, ``failed`` or ``cancelled``. The same again with the same token is harmless.

        Args:
            error: ``{"kind", "text", "exit_code"}`` of a failed one.
        """
        raise NotImplementedError

    def release(self, job_id: str, token: str) -> JobRecord:
        """The worker gives the job back unharmed: it is queued again (or cancelled, if that was asked for)."""
        raise NotImplementedError

    def check(self, job_id: str, token: str) -> None:
        """Raises ``StaleLeaseError`` unless the token is that of the job's present lease, ``NotFoundError`` without job."""
        raise NotImplementedError

    def expire(self) -> list[JobRecord]:
        """Take jobs from workers that were silent: queued again, or failed after ``most_attempts`` deaths.

        A lease has run out if it is past its time by the wall clock and was not renewed for ``lease_seconds`` by the
        monotonic clock of this server, so the first call sees all leases for the first time. To be called every few
        seconds (``Keeper`` does).
        """
        raise NotImplementedError

    def forget(self) -> None:
        """Give every lease its full time anew: this server was not there to hear renewals."""
        raise NotImplementedError
