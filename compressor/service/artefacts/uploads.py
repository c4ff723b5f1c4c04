"""What users send: in chunks, resumable, checked by its content before anything may use it."""

from __future__ import annotations

import builtins
import errno
import os
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from sqlalchemy import String, cast, delete, select, update
from sqlalchemy.orm import Session

from compressor.service.artefacts.blobs import Blobs
from compressor.service.artefacts.checking import why_refused
from compressor.service.artefacts.quota import require_room, stored_bytes
from compressor.service.clock import Clock
from compressor.service.database.base import new_id
from compressor.service.database.engine import Database
from compressor.service.database.tables import JobRow, UploadRow
from compressor.service.errors import (
    ConflictError,
    NotFoundError,
    OffsetError,
    RefusedError,
    ServiceError,
    StorageError,
    StorageFullError,
    TooLargeError,
)
from compressor.service.queue.rows import lock_project, upload_of
from compressor.service.queue.texts import cleaned, require_text
from compressor.service.records import QUEUED, RUNNING, UPLOAD_KINDS, UploadRecord
from compressor.service.settings import ServiceSettings
from compressor.storage.reading import size_text

OPEN, DONE, REFUSED = "open", "done", "refused"
UNPACKED = 4
"""Packed files may be as many times as large as the largest upload, unpacked."""
_CHUNK = 1 << 20
_SHA256 = re.compile(r"[0-9a-f]{64}")
_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


class Uploads:
    """Uploads of projects. Where a ``project`` is given, those of others are not found (``NotFoundError``)."""

    def __init__(self, database: Database, settings: ServiceSettings, clock: Clock, blobs: Blobs) -> None:
        self._database, self._settings, self._clock, self._blobs = database, settings, clock, blobs
        self._lock = threading.Lock()
        self._in_use: set[str] = set()

    def begin(
        self, project: str, name: str, kind: str, size: int, sha256: str | None = None, submitted_by: str = ""
    ) -> UploadRecord:
        """A new upload of ``size`` bytes.

        Raises:
            RefusedError: an unknown kind, an impossible name, size or hash.
            TooLargeError: more than ``upload_bytes``.
            QuotaError: more than the project may store.
        """
        if kind not in UPLOAD_KINDS:
            raise RefusedError(f"The kind {cleaned(kind)[:40]!r} is unknown; expected {', '.join(UPLOAD_KINDS)}.")
        if size < 1:
            raise RefusedError(f"An upload of {size} bytes holds nothing.")
        if size > self._settings.upload_bytes:
            raise TooLargeError(
                f"The upload has {size_text(size)}; {size_text(self._settings.upload_bytes)} are the most."
            )
        if sha256 is not None and not _SHA256.fullmatch(sha256):
            raise RefusedError("The sha256 is none; expected 64 lower-case hexadecimal digits.")
        now = self._clock.now()
        row = UploadRow(
            id=new_id(now),
            project=require_text("project", project, 100, empty=False),
            name=require_text("name", name, 200, empty=False),
            kind=kind,
            bytes=size,
            received=0,
            sha256=sha256,
            state=OPEN,
            created_at=now,
            submitted_by=cleaned(submitted_by)[:200],
        )
        with self._database.begin() as session:
            lock_project(session, project, now)
            require_room(session, project, size, self._settings.storage_bytes)
            session.add(row)
            session.flush()
            return upload_of(row)

    def append(self, upload_id: str, offset: int, stream: BinaryIO, project: str | None = None) -> UploadRecord:
        """Add a chunk that begins at ``offset``. Where the stream breaks off, what came of it stays.

        Raises:
            OffsetError: the chunk does not begin where the last one ended; it says where that is.
            ConflictError: the upload is done or refused, or another request is sending to it.
            TooLargeError: more than was announced; nothing of this chunk stays.
            StorageFullError: the disk is full; what was there before stays.
        """
        with self._alone(upload_id):
            record = self.get_open(upload_id, project)
            received = min(record.received, _size(self._path(record.id)))
            if received < record.received:
                self._set(record.id, received=received)
            if offset != received:
                raise OffsetError(f"The upload has {received:,} bytes; the next chunk begins there.", received)
            try:
                self._write(record, offset, stream)
            finally:
                received = min(_size(self._path(record.id)), record.bytes)
                self._set(record.id, received=received)
            return self.get(upload_id, project)

    def finish(self, upload_id: str, project: str | None = None) -> UploadRecord:
        """All is there: check it by its content, and store it. Again is harmless.

        Raises:
            ConflictError: bytes are missing.
            RefusedError: it is not what it says, with the reason; the upload is ``refused`` and its bytes are gone.
        """
        with self._alone(upload_id):
            if (record := self.get(upload_id, project)).state == DONE:
                return record
            record = self.get_open(upload_id, project)
            path = self._path(record.id)
            if record.received != record.bytes or _size(path) != record.bytes:
                there = min(record.received, _size(path))
                raise ConflictError(f"The upload has {there:,} of {record.bytes:,} bytes; send the rest first.")
            reason = why_refused(path, record.kind, UNPACKED * self._settings.upload_bytes)
            if reason is not None:
                self._refuse(record, reason)
            try:
                with path.open("rb") as file:
                    sha256, _ = self._blobs.put(file, record.sha256, record.bytes)
            except RefusedError as error:
                self._refuse(record, str(error), error)
            self._set(record.id, state=DONE, sha256=sha256)
            path.unlink(missing_ok=True)
            return self.get(upload_id, project)

    def get(self, upload_id: str, project: str | None = None) -> UploadRecord:
        """An upload. Raises ``NotFoundError``."""
        with self._database.begin(write=False) as session:
            row = session.get(UploadRow, cleaned(upload_id))
            if row is None or (project is not None and row.project != project):
                raise _no_upload(upload_id)
            return upload_of(row)

    def get_open(self, upload_id: str, project: str | None = None) -> UploadRecord:
        """An upload that takes chunks. Raises ``NotFoundError``, and ``ConflictError`` where it is done or refused."""
        record = self.get(upload_id, project)
        if record.state != OPEN:
            raise ConflictError(f"The upload {record.id} is {record.state}; begin another.")
        return record

    def list(self, project: str | None = None, limit: int = 100) -> builtins.list[UploadRecord]:
        """Uploads, the newest first."""
        query = select(UploadRow).order_by(UploadRow.id.desc()).limit(max(1, min(limit, 1000)))
        if project is not None:
            query = query.where(UploadRow.project == cleaned(project))
        with self._database.begin(write=False) as session:
            return [upload_of(row) for row in session.scalars(query)]

    def delete(self, upload_id: str, project: str | None = None) -> None:
        """Drop an upload. Raises ``ConflictError`` where a job that has not ended needs it."""
        with self._alone(upload_id):
            record = self.get(upload_id, project)
            with self._database.begin() as session:
                session.scalar(select(UploadRow.id).where(UploadRow.id == record.id).with_for_update())
                if record.id in uploads_in_use(session, (QUEUED, RUNNING)):
                    raise ConflictError(f"A job that has not ended needs the upload {record.id}.")
                session.execute(delete(UploadRow).where(UploadRow.id == record.id))
            self._path(record.id).unlink(missing_ok=True)

    def stored_bytes(self, project: str) -> int:
        """What a project has stored: files of jobs, uploads that are done, and all of those under way."""
        with self._database.begin(write=False) as session:
            return stored_bytes(session, cleaned(project))

    def idle_seconds(self, upload_id: str) -> float:
        """How long nothing was added to an upload here; 0 while something is; infinite where nothing is there."""
        with self._lock:
            if upload_id in self._in_use:
                return 0.0
        try:
            return max(0.0, self._clock.now().timestamp() - self._path(upload_id).stat().st_mtime)
        except FileNotFoundError:
            return float("inf")

    def _path(self, upload_id: str) -> Path:
        return self._settings.uploads_dir / f"{upload_id}.part"

    def _set(self, upload_id: str, **values: object) -> None:
        with self._database.begin() as session:
            session.execute(
                update(UploadRow)
                .where(UploadRow.id == upload_id)
                .values(**values)
                .execution_options(synchronize_session=False)
            )

    def _refuse(self, record: UploadRecord, reason: str, cause: Exception | None = None) -> None:
        self._set(record.id, state=REFUSED, received=0)
        self._path(record.id).unlink(missing_ok=True)
        raise RefusedError(f"The upload {record.name!r} is refused: {reason}") from cause

    def _write(self, record: UploadRecord, offset: int, stream: BinaryIO) -> None:
        """Write a chunk behind the first ``offset`` bytes; what a killed server wrote after these goes."""
        path = self._path(record.id)
        try:
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            file = os.fdopen(
                os.open(path, os.O_RDWR | os.O_CREAT | getattr(os, "O_BINARY", 0), 0o600), "r+b", buffering=0
            )
        except OSError as error:
            raise _error(path, error) from error
        with file:
            file.truncate(offset)
            file.seek(offset)
            left = record.bytes - offset
            while data := stream.read(_CHUNK):
                left -= len(data)
                if left < 0:
                    file.truncate(offset)
                    raise TooLargeError(f"The upload {record.id} has more than the {record.bytes:,} bytes announced.")
                try:
                    _write_all(file, data)
                except OSError as error:
                    with suppress(OSError):  # the error before is the one to tell
                        file.truncate(offset)
                    raise _error(path, error) from error
            os.fsync(file.fileno())

    @contextmanager
    def _alone(self, upload_id: str) -> Iterator[None]:
        with self._lock:
            if upload_id in self._in_use:
                raise ConflictError(f"Another request is at work on the upload {cleaned(upload_id)[:40]}; wait for it.")
            self._in_use.add(upload_id)
        try:
            yield
        finally:
            with self._lock:
                self._in_use.discard(upload_id)


def uploads_in_use(session: Session, states: tuple[str, ...] | None = None) -> set[str]:
    """Uploads that jobs in these states read; None for any job that is there."""
    query = select(JobRow.uploads).where(cast(JobRow.uploads, String) != "[]")
    if states is not None:
        query = query.where(JobRow.state.in_(states))
    return {upload for uploads in session.scalars(query) for upload in uploads}


def _no_upload(upload_id: str) -> NotFoundError:
    shown = cleaned(upload_id)[:40]
    return NotFoundError(f"There is no upload {shown!r} here; the list of uploads has those that are.")


def _write_all(file: BinaryIO, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[file.write(view) :]


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0


def _error(path: Path, error: OSError) -> ServiceError:
    if error.errno in _FULL:
        return StorageFullError(
            f"The disk of {path.parent} takes no more: {error.strerror}. Free some space, and resume."
        )
    return StorageError(f"Cannot write {path}: {error.strerror or error}.")
