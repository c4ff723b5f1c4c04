"""Contents in the store with what the database knows of them, so that none goes that somebody is about to refer to."""

from __future__ import annotations

import threading
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import BinaryIO

from sqlalchemy import ColumnElement, and_, delete, select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from compressor.service.artefacts.base import Store
from compressor.service.clock import Clock
from compressor.service.database.engine import Database
from compressor.service.database.tables import BlobRow, FileRow, UploadRow
from compressor.service.errors import NotFoundError, ServiceError, StorageError
from compressor.service.queue.rows import insert_into
from compressor.service.queue.texts import cleaned

GRACE_SECONDS = 24 * 3600.0
_BATCH = 200
_TRIES = 5
_LOCKS = 64


class Blobs:
    """Put contents here first, then refer to them: within the grace time, ``GRACE_SECONDS``, nothing is collected.

    Args:
        in_use: contents that others than jobs and uploads refer to.
    """

    def __init__(
        self,
        database: Database,
        store: Store,
        clock: Clock,
        in_use: Callable[[Session], set[str]] = lambda session: set(),
    ) -> None:
        self._database, self._store, self._clock, self._in_use = database, store, clock, in_use
        self._locks = [threading.Lock() for _ in range(_LOCKS)]

    def put(self, stream: BinaryIO, sha256: str | None = None, limit: int | None = None) -> tuple[str, int]:
        """As ``Store.put``."""
        found, size = self._store.put(stream, sha256, limit)
        if self._note(found, size):
            return found, size
        for _ in range(_TRIES):
            # It was collected between the two, which happens once: from here on its row is young.
            if not stream.seekable():
                break  # whoever sent it sends it again
            stream.seek(0)
            self._store.put(stream, found, limit)
            if self._note(found, size):
                return found, size
        raise StorageError(f"The content {found[:16]}... was being collected; send it again.")

    def has(self, sha256: str) -> bool:
        """Whether it is there; if so, its grace time begins anew."""
        with self._lock_of(sha256):
            with self._database.begin() as session:
                known = session.scalar(
                    update(BlobRow)
                    .where(BlobRow.sha256 == cleaned(sha256))
                    .values(created_at=self._clock.now())
                    .returning(BlobRow.sha256)
                    .execution_options(synchronize_session=False)
                )
            return known is not None and self._store.has(known)

    def open(self, sha256: str, start: int = 0) -> BinaryIO:
        """As ``Store.open``."""
        return self._store.open(sha256, start)

    def size(self, sha256: str) -> int:
        """Its bytes. Raises ``NotFoundError``."""
        with self._database.begin(write=False) as session:
            size = session.scalar(select(BlobRow.bytes).where(BlobRow.sha256 == cleaned(sha256)))
        if size is None:
            raise NotFoundError(f"There is no content {cleaned(sha256)[:16]}....")
        return size

    def collect_garbage(self, grace_seconds: float = GRACE_SECONDS) -> int:
        """Delete contents that nothing refers to, and that nobody has put or asked after within the grace time; how
        many."""
        before, removed, last = self._clock.now() - timedelta(seconds=grace_seconds), 0, ""
        while True:
            query = select(BlobRow.sha256).where(_is_garbage(before), BlobRow.sha256 > last)
            with self._database.begin(write=False) as session:
                batch = session.scalars(query.order_by(BlobRow.sha256).limit(_BATCH)).all()
            if not batch:
                return removed
            last = batch[-1]
            removed += sum(self._collect(sha256, before) for sha256 in batch)

    def _note(self, sha256: str, size: int) -> bool:
        """Write the row; whether the content is there then. A collector holds the row, or the lock here, until the
        content is gone."""
        with self._lock_of(sha256):
            self._write(sha256, size)
            return self._store.has(sha256)

    def _write(self, sha256: str, size: int) -> None:
        with self._database.begin() as session:
            insert = insert_into(session, BlobRow)
            insert = insert.on_conflict_do_update(
                index_elements=["sha256"], set_={"created_at": insert.excluded.created_at}
            )
            session.connection().execute(insert, {"sha256": sha256, "bytes": size, "created_at": self._clock.now()})

    def _lock_of(self, sha256: str) -> threading.Lock:
        return self._locks[hash(sha256) % _LOCKS]

    def _collect(self, sha256: str, before: datetime) -> bool:
        """Delete a content and its row. On Postgres the row is locked meanwhile. On SQLite, where that would stop all
        writers for as long as a bucket takes, there is one server, and a lock in it does."""
        with self._lock_of(sha256):
            try:
                with self._database.begin() as session:
                    if sha256 in self._in_use(session):
                        return False
                    size = session.scalar(
                        delete(BlobRow)
                        .where(BlobRow.sha256 == sha256, _is_garbage(before))
                        .returning(BlobRow.bytes)
                        .execution_options(synchronize_session=False)
                    )
                    if size is None:
                        return False
                    if not self._database.is_sqlite:
                        self._store.delete(sha256)
            except IntegrityError:  # a job refers to it since
                return False
            if self._database.is_sqlite:
                try:
                    self._store.delete(sha256)
                except ServiceError:
                    self._write(sha256, size)  # to be tried again
                    raise
            return True


def _is_garbage(before: datetime) -> ColumnElement[bool]:
    return and_(
        BlobRow.created_at < before,
        ~select(FileRow.job_id).where(FileRow.sha256 == BlobRow.sha256).exists(),
        ~select(UploadRow.id).where(UploadRow.sha256 == BlobRow.sha256, UploadRow.state == "done").exists(),
    )
