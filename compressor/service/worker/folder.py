"""The folder of a job, there and here: restored from the last snapshot, and stored as a new one.

A snapshot is what a kill at that moment would leave, and that is what jobs can go on from: the processes of the job are
held still while its files are listed and linked, some milliseconds, and go on while contents are read and sent.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import stat
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from compressor.service.records import FileRecord
from compressor.service.worker.errors import LimitError, RequestRefusedError
from compressor.service.worker.limits import Limits, shown_bytes

LOG = "worker.log"
"""What the job's process wrote to its terminal: among its files, and not in its way when it goes on."""
_SMALL = 1 << 20
_PIECE = 1 << 20
_TIMES = 3
"""Contents may be lost between two requests, though not again and again."""
_Key = tuple[int, int, int, int]


@dataclass(frozen=True)
class _Held:
    """A file as it was: linked or copied into a folder of the worker's own."""

    path: str
    place: Path
    size: int
    key: _Key


def restored(files: Iterable[FileRecord], folder: Path, fetch: Callable[[str, Path, int], None]) -> None:
    """Fetch ``files`` into ``folder``.

    Raises:
        RequestRefusedError: a path leads out of it. Others are those of ``fetch``.
    """
    for each in files:
        place = safe_place(folder, each.path)
        place.parent.mkdir(parents=True, exist_ok=True)
        fetch(each.sha256, place, each.bytes)


def safe_place(folder: Path, path: str) -> Path:
    """Where a file of a job lies. Raises ``RequestRefusedError`` if that is not inside ``folder``."""
    pure = PurePosixPath(path)
    parts = pure.parts
    if not parts or pure.is_absolute() or ".." in parts or "\\" in path or "\0" in path or len(path) > 1000:
        raise RequestRefusedError(f"{path[:80]!r} is no path inside a job's folder.", 422)
    return folder.joinpath(*parts)


class Snapshots:
    """Stores a folder again and again. What the server has already is not sent.

    Args:
        folder: whose files are stored.
        staging: a folder on the same disk, where links are kept while they are sent.
    """

    def __init__(self, folder: Path, staging: Path, limits: Limits) -> None:
        self._folder, self._staging, self._limits = folder, staging, limits
        self._hashes: dict[_Key, str] = {}
        self._last: tuple[FileRecord, ...] | None = None

    def take(
        self,
        still: AbstractContextManager[object],
        put: Callable[[str, Path, int], None],
        commit: Callable[[list[FileRecord]], list[str]],
        *,
        log: str = "",
    ) -> bool:
        """Store what there is now; returns False if it is what was stored last.

        Args:
            still: while it is entered, nothing is written to the folder.
            put: sends a content.
            commit: makes a list of files the job's; returns contents that are missing, then nothing changed.
            log: the text of ``worker.log``.

        Raises:
            LimitError: there are too many files. Others are those of ``put`` and ``commit``.
        """
        shutil.rmtree(self._staging, ignore_errors=True)
        self._staging.mkdir(parents=True)
        try:
            with still:
                held = list(self._held())
            if log:
                held = [each for each in held if each.path != LOG] + [self._written(log)]
            records = [FileRecord(each.path, self._hash(each), each.size) for each in held]
            records.sort(key=lambda record: record.path)
            if tuple(records) == self._last:
                return False
            places = {record.sha256: each for record, each in zip(sorted_as(records, held), held, strict=True)}
            missing = commit(records)
            for _ in range(_TIMES):
                if not missing:
                    break
                for sha256 in missing:
                    put(sha256, places[sha256].place, places[sha256].size)
                missing = commit(records)
            if missing:
                raise RequestRefusedError(f"The server does not keep what it is sent ({missing[0][:12]}).", 409)
            self._last = tuple(records)
            self._hashes = {
                each.key: record.sha256 for record, each in zip(sorted_as(records, held), held, strict=True)
            }
            return True
        finally:
            shutil.rmtree(self._staging, ignore_errors=True)

    def _held(self) -> Iterator[_Held]:
        """Every regular file, linked, or copied if it is small: those may be written to the end of. Links are not
        followed, and neither they nor pipes and the like are taken."""
        count = 0
        for root, folders, names, descriptor in os.fwalk(self._folder, follow_symlinks=False):
            folders[:] = [name for name in folders if not _is_temporary(name)]
            within = Path(root).relative_to(self._folder)
            for name in sorted(names):
                if _is_temporary(name) or (within.name == ".job" and name == "lock"):
                    continue
                with suppress(FileNotFoundError):  # the job removed it meanwhile
                    status = os.stat(name, dir_fd=descriptor, follow_symlinks=False)
                    if not stat.S_ISREG(status.st_mode) or not _is_text(path := (within / name).as_posix()):
                        continue
                    if (count := count + 1) > self._limits.folder_files:
                        raise LimitError(f"The job has more files than the limit of {self._limits.folder_files}.")
                    place = self._staging / str(count)
                    _take(descriptor, name, status.st_size, place)
                    size = min(status.st_size, place.stat().st_size)
                    yield _Held(path, place, size, (status.st_ino, status.st_mtime_ns, size, status.st_dev))

    def _written(self, log: str) -> _Held:
        place = self._staging / LOG
        place.write_text(log, encoding="utf-8")
        return _Held(LOG, place, place.stat().st_size, (0, 0, 0, 0))

    def _hash(self, held: _Held) -> str:
        if held.key in self._hashes and held.key[0]:
            return self._hashes[held.key]
        digest, left = hashlib.sha256(), held.size
        with held.place.open("rb") as file:
            while left and (piece := file.read(min(_PIECE, left))):
                digest.update(piece)
                left -= len(piece)
        if left:
            raise LimitError(f"{held.path} became shorter while it was read ({shown_bytes(left)} are missing).")
        return digest.hexdigest()


def sorted_as(records: list[FileRecord], held: list[_Held]) -> list[FileRecord]:
    """The records in the order of what they were made of."""
    by_path = {record.path: record for record in records}
    return [by_path[each.path] for each in held]


def _take(folder: int, name: str, size: int, place: Path) -> None:
    """Keep a file of an open folder as it is now, under ``place``."""
    if size > _SMALL:
        try:
            os.link(name, place, src_dir_fd=folder, follow_symlinks=False)
            return
        except OSError:
            pass  # another disk, or one without links
    source = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=folder)
    with os.fdopen(source, "rb") as reading, place.open("xb") as writing:
        left = size
        while left > 0 and (piece := reading.read(min(_PIECE, left))):
            writing.write(piece)
            left -= len(piece)


def _is_temporary(name: str) -> bool:
    """What is being written, by ``storage.files``; it gets its own name when it is whole."""
    return name.startswith(".") and (name.endswith(".tmp") or ".tmp" in name[1:])


def _is_text(path: str) -> bool:
    try:
        path.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return "\0" not in path and "\\" not in path and len(path) <= 1000
