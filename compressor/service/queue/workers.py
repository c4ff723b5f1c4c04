"""Workers that were heard of."""

from __future__ import annotations

from collections.abc import Collection

from compressor.service.clock import Clock
from compressor.service.database.engine import Database
from compressor.service.records import WorkerRecord


class Workers:
    """Who works here. A worker is registered by what it does; nothing depends on this table."""

    def __init__(self, database: Database, clock: Clock) -> None:
        raise NotImplementedError

    def seen(self, name: str, labels: Collection[str] = (), version: str = "", job_id: str | None = None) -> None:
        """A worker was heard of. Written at most every few seconds, unless something changed."""
        raise NotImplementedError

    def list(self, within_seconds: float | None = None) -> list[WorkerRecord]:
        """Workers by name; of the last ``within_seconds`` only, if given."""
        raise NotImplementedError
