"""What users send: in chunks, resumable, checked by its content before anything may use it."""

from __future__ import annotations

from typing import BinaryIO

from compressor.service.artefacts.blobs import Blobs
from compressor.service.clock import Clock
from compressor.service.database.engine import Database
from compressor.service.records import UploadRecord
from compressor.service.settings import ServiceSettings


class Uploads:
    """Uploads of projects. Where a ``project`` is given, those of others are not found (``NotFoundError``)."""

    def __init__(self, database: Database, settings: ServiceSettings, clock: Clock, blobs: Blobs) -> None:
        raise NotImplementedError

    def begin(
        self, project: str, name: str, kind: str, size: int, sha256: str | None = None, submitted_by: str = ""
    ) -> UploadRecord:
        """A new upload of ``size`` bytes.

        Raises:
            RefusedError: an unknown kind, an impossible name, size or hash.
            TooLargeError: more than ``upload_bytes``.
            QuotaError: more than the project may store.
        """
        raise NotImplementedError

    def append(self, upload_id: str, offset: int, stream: BinaryIO, project: str | None = None) -> UploadRecord:
        """Add a chunk that begins at ``offset``. Where the stream breaks off, what came of it stays.

        Raises:
            OffsetError: the chunk does not begin where the last one ended; it says where that is.
            ConflictError: the upload is done or refused.
            TooLargeError: more than was announced; nothing of what is too much stays.
            StorageFullError: the disk is full; what was there before stays.
        """
        raise NotImplementedError

    def finish(self, upload_id: str, project: str | None = None) -> UploadRecord:
        """All is there: check it by its content, and store it. Again is harmless.

        Raises:
            ConflictError: bytes are missing.
            RefusedError: it is not what it says, with the reason; the upload is ``refused`` and its bytes are gone.
        """
        raise NotImplementedError

    def get(self, upload_id: str, project: str | None = None) -> UploadRecord:
        """An upload. Raises ``NotFoundError``."""
        raise NotImplementedError

    def list(self, project: str | None = None, limit: int = 100) -> list[UploadRecord]:
        """Uploads, the newest first."""
        raise NotImplementedError

    def delete(self, upload_id: str, project: str | None = None) -> None:
        """Drop an upload. Raises ``ConflictError`` where a job that has not ended needs it."""
        raise NotImplementedError

    def stored_bytes(self, project: str) -> int:
        """What a project has stored: files of jobs, uploads that are done, and all of those under way."""
        raise NotImplementedError
