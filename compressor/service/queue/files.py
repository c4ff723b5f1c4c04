"""The folder of a job, as its worker last left it."""

from __future__ import annotations

import builtins
import re
from collections.abc import Sequence
from typing import BinaryIO

from sqlalchemy import delete, select, update
from sqlalchemy.orm import load_only

from compressor.service.artefacts.blobs import Blobs
from compressor.service.clock import Clock
from compressor.service.database.engine import Database
from compressor.service.database.tables import BlobRow, FileRow, JobRow, UploadRow
from compressor.service.errors import NotFoundError, RefusedError
from compressor.service.queue.rows import IS_RUNNING, fenced, files_of, insert_into
from compressor.service.queue.texts import cleaned
from compressor.service.records import FileRecord

MOST_FILES = 10_000
_SHA256 = re.compile(r"[0-9a-f]{64}")
_LONGEST_PATH = 500
_IN = 500  # values in one IN (...)


class Files:
    """Files of jobs: names here, contents in the store."""

    def __init__(self, database: Database, blobs: Blobs, clock: Clock) -> None:
        self._database, self._blobs, self._clock = database, blobs, clock

    def snapshot(self, job_id: str, token: str, files: Sequence[FileRecord]) -> builtins.list[str]:
        """These are all files of the job from now on, unless contents are missing: then nothing changes, and their
        hashes come back, to be put first.

        Raises:
            StaleLeaseError: another worker has the job.
            RefusedError: a path that leads out of the folder, occurs twice, or is not portable; a wrong size.
        """
        _require_paths([file.path for file in files])
        for file in files:
            if not _SHA256.fullmatch(file.sha256):
                raise RefusedError(f"{file.path} has no SHA-256, 64 lower-case hexadecimal digits.")
        hashes = sorted({file.sha256 for file in files})
        with self._database.begin() as session:
            job = fenced(session, job_id, token)
            sizes: dict[str, int] = {}
            for start in range(0, len(hashes), _IN):
                # Locked in order, and touched: nothing collects them from here on.
                query = select(BlobRow.sha256, BlobRow.bytes).where(BlobRow.sha256.in_(hashes[start : start + _IN]))
                sizes |= {
                    row.sha256: row.bytes for row in session.execute(query.order_by(BlobRow.sha256).with_for_update())
                }
            missing = [sha256 for sha256 in hashes if sha256 not in sizes]
            if missing:
                return missing
            for file in files:
                if file.bytes != sizes[file.sha256]:
                    raise RefusedError(f"{file.path} has {sizes[file.sha256]:,} bytes, not {file.bytes:,}.")
            for start in range(0, len(hashes), _IN):
                session.execute(
                    update(BlobRow)
                    .where(BlobRow.sha256.in_(hashes[start : start + _IN]))
                    .values(created_at=self._clock.now())
                    .execution_options(synchronize_session=False)
                )
            before = {file.path: file for file in files_of(session, job.id)}
            after = {file.path: file for file in files}
            gone = [path for path in before if path not in after]
            for start in range(0, len(gone), _IN):
                session.execute(
                    delete(FileRow)
                    .where(FileRow.job_id == job.id, FileRow.path.in_(gone[start : start + _IN]))
                    .execution_options(synchronize_session=False)
                )
            changed = [
                {"job_id": job.id, "path": file.path, "sha256": file.sha256, "bytes": file.bytes}
                for path, file in after.items()
                if before.get(path) != file
            ]
            if changed:
                insert = insert_into(session, FileRow)
                insert = insert.on_conflict_do_update(
                    index_elements=["job_id", "path"],
                    set_={"sha256": insert.excluded.sha256, "bytes": insert.excluded.bytes},
                )
                session.connection().execute(insert, changed)
        return []

    def list(self, job_id: str) -> builtins.list[FileRecord]:
        """All files of a job by path."""
        with self._database.begin(write=False) as session:
            return list(files_of(session, cleaned(job_id)))

    def may_read(self, token: str, sha256: str) -> bool:
        """Whether the worker with this lease has a job that needs a content: a file, a parent's, an upload."""
        with self._database.begin(write=False) as session:
            running = select(JobRow).where(JobRow.state == IS_RUNNING, JobRow.lease_token == cleaned(token))
            job = session.scalar(running.options(load_only(JobRow.id, JobRow.parent, JobRow.uploads)))
            if job is None:
                return False
            jobs = [each for each in (job.id, job.parent) if each is not None]
            file = select(FileRow.path).where(FileRow.job_id.in_(jobs), FileRow.sha256 == sha256).limit(1)
            upload = select(UploadRow.id).where(UploadRow.id.in_(job.uploads), UploadRow.sha256 == sha256).limit(1)
            return session.scalar(file) is not None or session.scalar(upload) is not None

    def get(self, job_id: str, path: str) -> FileRecord:
        """A file. Raises ``NotFoundError``."""
        with self._database.begin(write=False) as session:
            row = session.get(FileRow, (cleaned(job_id), cleaned(path)))
            if row is None:
                raise NotFoundError(f"Job {cleaned(job_id)[:40]} has no file {cleaned(path)[:200]!r}.")
            return FileRecord(row.path, row.sha256, row.bytes)

    def open(self, job_id: str, path: str, start: int = 0) -> tuple[FileRecord, BinaryIO]:
        """A file, open for reading from byte ``start``. Raises ``NotFoundError``."""
        file = self.get(job_id, path)
        return file, self._blobs.open(file.sha256, start)


def _require_paths(paths: Sequence[str]) -> None:
    """Refuse what is no plain name within a folder, on any system."""
    if len(paths) > MOST_FILES:
        raise RefusedError(f"A snapshot has {len(paths):,} files; {MOST_FILES:,} are the most.")
    folders: set[str] = set()
    for path in paths:
        parts = path.split("/")
        is_plain = path == cleaned(path) and path.isprintable() and "\\" not in path and ":" not in parts[0]
        if not is_plain or len(path) > _LONGEST_PATH or any(part in ("", ".", "..") for part in parts):
            raise RefusedError(f"The path {path[:100]!r} is no name within the job's folder.")
        folders.update("/".join(parts[:count]) for count in range(1, len(parts)))
    twice = next((path for path in paths if path in folders), None)
    if twice is None and len(set(paths)) < len(paths):
        twice = next(path for path in paths if paths.count(path) > 1)
    if twice is not None:
        raise RefusedError(f"The path {twice!r} occurs twice in the snapshot, or is a folder of it, too.")
