"""Everything that a server is made of, in one place."""

from __future__ import annotations

from dataclasses import dataclass

from compressor.service.artefacts.base import Store
from compressor.service.artefacts.blobs import Blobs
from compressor.service.artefacts.store import open_store
from compressor.service.artefacts.uploads import Uploads
from compressor.service.clock import Clock
from compressor.service.database.engine import Database
from compressor.service.database.migrate import migrate
from compressor.service.devices.files import files_in_use
from compressor.service.queue.bell import Bell
from compressor.service.queue.events import EventLog
from compressor.service.queue.files import Files
from compressor.service.queue.jobs import Jobs
from compressor.service.queue.leases import Leases
from compressor.service.queue.retention import Retention
from compressor.service.queue.workers import Workers
from compressor.service.settings import ServiceSettings
from compressor.storage.files import storage_errors
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
    clock = clock or Clock()
    for folder in (settings.data_dir, settings.uploads_dir):
        with storage_errors(folder, "make"):
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    database = Database(settings.database, clock=clock)
    migrate(database)
    store = open_store(settings.artefacts_url)
    bell, blobs = Bell(), Blobs(database, store, clock, files_in_use)
    jobs, workers = Jobs(database, settings, clock, bell), Workers(database, clock)
    uploads = Uploads(database, settings, clock, blobs)
    return Services(
        settings=settings,
        clock=clock,
        database=database,
        bell=bell,
        jobs=jobs,
        leases=Leases(database, settings, clock, bell),
        events=EventLog(database, clock, bell),
        files=Files(database, blobs, clock),
        workers=workers,
        store=store,
        blobs=blobs,
        uploads=uploads,
        retention=Retention(
            database, settings, clock, jobs=jobs, uploads=uploads, workers=workers, blobs=blobs, store=store
        ),
    )


def server_lock(settings: ServiceSettings) -> FolderLock | None:
    """The right to be the server of a SQLite database, until it is released; None for Postgres, which may have several.

    Raises:
        UsageError: another server has it.
    """
    file = Database(settings.database, clock=Clock()).file
    if file is None:
        return None
    with storage_errors(file.parent, "make"):
        file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        return FolderLock.acquire(file.with_name(f"{file.name}.lock"), file.parent)
