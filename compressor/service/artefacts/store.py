"""A store on fsspec: a folder, memory, or a bucket, by its URL."""

from __future__ import annotations

import errno
import hashlib
import os
import secrets
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any, BinaryIO

from compressor.errors import CompressorError, MissingDependencyError, UsageError
from compressor.service.artefacts.base import Store
from compressor.service.errors import (
    NotFoundError,
    RefusedError,
    ServiceError,
    StorageError,
    StorageFullError,
    TooLargeError,
)
from compressor.storage.reading import size_text

CHUNK = 1 << 20
_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_TEMPORARY, _MARK = "tmp", "store.txt"
_MARK_TEXT = b"Contents by their SHA-256, written by compress serve. Do not change anything here.\n"


class FsspecStore:
    """Contents as ``ab/cdef...`` below a folder or URL; written under a temporary name and moved. See ``Store``.

    Raises:
        UsageError: a URL of no kind that fsspec knows.
        MissingDependencyError: what reaches such URLs is not installed.
        StorageError: it cannot be written.
    """

    def __init__(self, url: str) -> None:
        from fsspec.core import url_to_fs
        from fsspec.implementations.local import LocalFileSystem

        self.url = url
        try:
            self._fs, root = url_to_fs(url)
        except ImportError as error:
            raise MissingDependencyError(
                f"Artefacts at {url} need another package; install it with pip install 'compressor[s3]' ({error})."
            ) from error
        except ValueError as error:
            raise UsageError(
                f"Artefacts cannot lie at {url}: {error}; name a folder, or a URL like s3://..."
            ) from error
        self._root = root.rstrip("/")
        self._is_local = isinstance(self._fs, LocalFileSystem)
        with self._told("write"):
            if not self._has(_MARK):
                self._make_folder(self._path(_MARK))
                with self._fs.open(self._path(_MARK), "wb") as file:
                    file.write(_MARK_TEXT)

    def put(self, stream: BinaryIO, sha256: str | None = None, limit: int | None = None) -> tuple[str, int]:
        """See ``Store.put``."""
        temporary = self._path(f"{_TEMPORARY}/{int(time.time()):x}-{secrets.token_hex(8)}")
        digest, size = hashlib.sha256(), 0
        try:
            with self._told("write"):
                self._make_folder(temporary)
                file = self._fs.open(temporary, "wb")
            try:
                while data := stream.read(CHUNK):
                    digest.update(data)
                    size += len(data)
                    if limit is not None and size > limit:
                        raise TooLargeError(f"It has more than {size_text(limit)}, the most that is taken.")
                    with self._told("write"):
                        file.write(data)
                with self._told("write"):
                    self._flush(file)
            finally:
                with self._told("write"):
                    file.close()
            found = digest.hexdigest()
            if sha256 is not None and found != sha256:
                raise RefusedError(f"The SHA-256 is {found}, not {sha256}: it was damaged on its way; send it again.")
            with self._told("write"):
                if not self._has(_place(found)):
                    target = self._path(_place(found))
                    self._make_folder(target)
                    self._fs.mv(temporary, target)
                    self._flush_folder(target)
        finally:
            with suppress(Exception):  # it was moved, or cannot be reached: then it goes with the next sweep
                self._fs.rm(temporary)
        return found, size

    def open(self, sha256: str, start: int = 0) -> BinaryIO:
        """See ``Store.open``."""
        try:
            with self._told("read"):
                file: BinaryIO = self._fs.open(self._path(_place(sha256)), "rb")
                if start:
                    file.seek(start)
                return file
        except FileNotFoundError as error:
            raise NotFoundError(f"There is no content {sha256[:16]}... in the store.") from error

    def has(self, sha256: str) -> bool:
        """See ``Store.has``."""
        with self._told("read"):
            return self._has(_place(sha256))

    def delete(self, sha256: str) -> None:
        """See ``Store.delete``."""
        with suppress(FileNotFoundError), self._told("delete"):  # what is gone is deleted
            self._fs.rm_file(self._path(_place(sha256)))

    def check(self) -> None:
        """See ``Store.check``."""
        with self._told("read"):
            if self._has(_MARK):
                return
        raise StorageError(f"The artefacts at {self.url} are gone: {_MARK} is not there.")

    def remove_temporaries(self, older_than: float) -> int:
        """See ``Store.remove_temporaries``."""
        removed, before = 0, time.time() - older_than
        with suppress(FileNotFoundError), self._told("read"):  # nothing was ever written
            self._fs.invalidate_cache()
            for path in self._fs.ls(self._path(_TEMPORARY), detail=False):
                if _written(path) < before:
                    with suppress(FileNotFoundError):  # whoever wrote it was faster
                        self._fs.rm(path)
                        removed += 1
        return removed

    def _path(self, name: str) -> str:
        return f"{self._root}/{name}"

    def _has(self, name: str) -> bool:
        self._fs.invalidate_cache()  # another server may have put it there
        try:
            return bool(self._fs.info(self._path(name))["type"] == "file")
        except FileNotFoundError:  # any other error is one of reaching it
            return False

    def _make_folder(self, path: str) -> None:
        if self._is_local:  # elsewhere there are none: a name that is made would be a bucket
            os.makedirs(os.path.dirname(path), exist_ok=True)

    def _flush(self, file: Any) -> None:
        file.flush()
        if self._is_local:
            os.fsync(file.fileno())

    def _flush_folder(self, path: str) -> None:
        if self._is_local and os.name == "posix":
            folder = os.open(os.path.dirname(path), os.O_RDONLY)
            try:
                with suppress(OSError):  # some file systems cannot
                    os.fsync(folder)
            finally:
                os.close(folder)

    @contextmanager
    def _told(self, action: str) -> Iterator[None]:
        """Whatever a file system raises, as an error of the service; ``FileNotFoundError`` stays where there may be
        nothing to read or delete. Where something is written, it is the place that is not there: no such bucket."""
        try:
            yield
        except CompressorError:
            raise
        except OSError as error:
            if isinstance(error, FileNotFoundError) and action != "write":
                raise
            raise self._error(action, error.errno, error.strerror or str(error)) from error
        except Exception as error:  # of the client of a bucket
            raise self._error(action, None, f"{type(error).__name__}: {error}"[:200]) from error

    def _error(self, action: str, code: int | None, text: str) -> ServiceError:
        if code in _FULL:
            return StorageFullError(
                f"The artefacts at {self.url} take no more: {text}. Free some space, and try again."
            )
        return StorageError(f"Cannot {action} artefacts at {self.url}: {text}.")


def open_store(url: str) -> Store:
    """The store at a folder or fsspec URL. Raises as ``FsspecStore``."""
    return FsspecStore(url)


def _place(sha256: str) -> str:
    if len(sha256) != 64 or not set(sha256) <= set("0123456789abcdef"):
        raise NotFoundError("A content has a SHA-256 of 64 lower-case hexadecimal digits.")
    return f"{sha256[:2]}/{sha256[2:]}"


def _written(path: str) -> float:
    """When a temporary name was made; of a name that is none of ours, never."""
    try:
        return float(int(path.rstrip("/").rpartition("/")[2].partition("-")[0], 16))
    except ValueError:
        return float("inf")
