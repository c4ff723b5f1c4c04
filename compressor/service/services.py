"""Everything that a server is made of, in one place."""

from __future__ import annotations

from dataclasses import dataclass

from compressor.service.artefacts.base import Store
from compressor.service.artefacts.blobs import Blobs
from compressor.service.artefacts.uploads import Uploads
from compressor.service.clock import Clock
from compressor.service.database.engine import Database
from compressor.service.queue.bell import Bell
from compressor.service.queue.events import EventLog
from compressor.service.queue.files import Files
from compressor.service.queue.jobs import Jobs
from compressor.service.queue.leases import Leases
from compressor.service.queue.retention import Retention
from compressor.service.queue.workers import Workers
from compressor.service.settings import ServiceSettings
from compressor.storage.lock import FolderLock


@dataclass(frozen=True)
class Services:
    """The parts of a server. All are safe to use from any thread, and none needs the app."""

    settings: ServiceSettings
    clock: Clock
    database: Database
    bell: Bell
    jobs: Jobs
    leases: Leases
    events: EventLog
    files: Files
    workers: Workers
    store: Store
    blobs: Blobs
    uploads: Uploads
    retention: Retention

    def check(self) -> None:
        """Raises ``DatabaseAwayError`` or ``StorageError`` where one of them does not answer (``/readyz``)."""
        self.database.check()
        self.store.check()

    def close(self) -> None:
        """Wake those who wait, and close connections."""
        self.bell.ring_all()
        self.database.dispose()


def services_of(settings: ServiceSettings, clock: Clock | None = None) -> Services:
    """Make the folders and tables that are not there, and everything above them.

    Raises:
        NewerDatabaseError, DatabaseAwayError, UsageError: the database or the artefacts cannot be used.
    """
    raise NotImplementedError


def server_lock(settings: ServiceSettings) -> FolderLock | None:
    """The right to be the server of a SQLite database, until it is released; None for Postgres, which may have several.

    Raises:
        UsageError: another server has it.
    """
    raise NotImplementedError
