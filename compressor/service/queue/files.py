"""The folder of a job, as its worker last left it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import BinaryIO

from compressor.service.artefacts.blobs import Blobs
from compressor.service.clock import Clock
from compressor.service.database.engine import Database
from compressor.service.records import FileRecord


class Files:
    """Files of jobs: names here, contents in the store."""

    def __init__(self, database: Database, blobs: Blobs, clock: Clock) -> None:
        raise NotImplementedError

    def snapshot(self, job_id: str, token: str, files: Sequence[FileRecord]) -> list[str]:
        """These are all files of the job from now on, unless contents are missing: then nothing changes, and their
        hashes come back, to be put first.

        Raises:
            StaleLeaseError: another worker has the job.
            RefusedError: a path that leads out of the folder, occurs twice, or is not portable; a wrong size.
        """
        raise NotImplementedError

    def list(self, job_id: str) -> list[FileRecord]:
        """All files of a job by path."""
        raise NotImplementedError

    def get(self, job_id: str, path: str) -> FileRecord:
        """A file. Raises ``NotFoundError``."""
        raise NotImplementedError

    def open(self, job_id: str, path: str, start: int = 0) -> tuple[FileRecord, BinaryIO]:
        """A file, open for reading from byte ``start``. Raises ``NotFoundError``."""
        raise NotImplementedError
