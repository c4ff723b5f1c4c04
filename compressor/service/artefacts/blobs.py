"""Contents in the store with what the database knows of them, so that none goes that somebody is about to refer to."""

from __future__ import annotations

from typing import BinaryIO

from compressor.service.artefacts.base import Store
from compressor.service.clock import Clock
from compressor.service.database.engine import Database

GRACE_SECONDS = 24 * 3600.0


class Blobs:
    """Put contents here first, then refer to them: within the grace time, ``GRACE_SECONDS``, nothing is collected."""

    def __init__(self, database: Database, store: Store, clock: Clock) -> None:
        raise NotImplementedError

    def put(self, stream: BinaryIO, sha256: str | None = None, limit: int | None = None) -> tuple[str, int]:
        """As ``Store.put``."""
        raise NotImplementedError

    def has(self, sha256: str) -> bool:
        """Whether it is there; if so, its grace time begins anew."""
        raise NotImplementedError

    def open(self, sha256: str, start: int = 0) -> BinaryIO:
        """As ``Store.open``."""
        raise NotImplementedError

    def size(self, sha256: str) -> int:
        """Its bytes. Raises ``NotFoundError``."""
        raise NotImplementedError

    def collect_garbage(self, grace_seconds: float = GRACE_SECONDS) -> int:
        """Delete contents that neither jobs nor uploads refer to, and that nobody has put or asked after within the
        grace time; how many."""
        raise NotImplementedError
