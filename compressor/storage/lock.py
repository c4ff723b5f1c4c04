"""One process at a time in a folder."""

from __future__ import annotations

import contextlib
import errno
import os
import stat
import time
from collections.abc import Iterator
from contextvars import ContextVar
from pathlib import Path
from typing import IO

from compressor.errors import UsageError

_GRACE_S = 10.0
"""How long a dead owner's orphans (workers that inherited the open file) get to notice and exit."""
_patience: ContextVar[float | None] = ContextVar("patience", default=None)
_LONGEST = 20
"""Digits of a process id."""


class FolderLock:
    """An advisory lock that the kernel drops when its owner dies, so a stale one cannot stay behind.

    The file also holds the owner's process id, for messages only.
    """

    def __init__(self, file: IO[str]) -> None:
        self._file: IO[str] | None = file

    @classmethod
    def acquire(cls, path: Path, folder: Path) -> FolderLock:
        """Lock ``path`` on behalf of ``folder``, which exists. Raises ``UsageError`` if a living process holds it."""
        deadline = time.monotonic() + (_patience.get() or _GRACE_S)
        while True:
            path.parent.mkdir(exist_ok=True)
            file = _open(path)
            cls._wait(file, folder, deadline)
            if _is_at(file, path):
                break
            file.close()  # its owner gave up and took the file away, see ``Job``
        file.seek(0)
        file.truncate()
        file.write(str(os.getpid()))
        file.flush()
        return cls(file)

    @staticmethod
    def _wait(file: IO[str], folder: Path, deadline: float) -> None:
        while not _try_lock(file):
            file.seek(0)
            owner = file.read().strip()
            if (alive(owner) and _patience.get() is None) or time.monotonic() > deadline:
                file.close()
                raise UsageError(
                    f"Another process{f' (pid {owner})' if owner else ''} is working in {folder}; "
                    "wait until it ends, or choose another folder."
                )
            time.sleep(0.1)

    def release(self) -> None:
        """Give the lock up. Harmless when called again."""
        if self._file is not None:
            file, self._file = self._file, None
            with contextlib.suppress(OSError):  # the disk may be full, and the id is for messages only
                file.truncate(0)
            file.close()


@contextlib.contextmanager
def patient(seconds: float) -> Iterator[None]:
    """Inside, a folder that somebody works in is waited for that long: who is begun anew elsewhere follows a process
    that may take a while to notice that nobody wants it any more."""
    token = _patience.set(seconds)
    try:
        yield
    finally:
        _patience.reset(token)


def _is_at(file: IO[str], path: Path) -> bool:
    """Whether ``path`` still names the open file."""
    try:
        return os.path.samestat(os.fstat(file.fileno()), os.stat(path))
    except FileNotFoundError:
        return False


def _open(path: Path) -> IO[str]:
    """The lock file, made if it is not there. Anything that is no lock is refused, never followed or emptied."""
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0), 0o666)
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.EMLINK) or path.is_symlink():
            raise UsageError(f"{path} is a symbolic link, no lock of a job; delete it, and run again.") from error
        raise
    file = os.fdopen(descriptor, "r+", encoding="ascii", errors="replace")
    text = file.read(_LONGEST + 1) if stat.S_ISREG(os.fstat(descriptor).st_mode) else "no file"
    if len(text) > _LONGEST or (text and not text.isdigit()):
        file.close()
        raise UsageError(f"{path} is no lock of a job; delete it, and run again.")
    return file


def alive(owner: str) -> bool:
    """Whether the process id written in a lock is that of a living process; unknown counts as alive."""
    if os.name != "posix" or not owner.isdigit():
        return True  # elsewhere, signal 0 is a real signal
    try:
        os.kill(int(owner), 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True


if os.name == "posix":
    import fcntl

    def _try_lock(file: IO[str]) -> bool:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

else:

    def _try_lock(file: IO[str]) -> bool:
        import msvcrt

        try:
            file.seek(1 << 20)  # a byte past the text, which stays readable for others
            msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)  # type: ignore[attr-defined,unused-ignore]
        except OSError:
            return False
        return True
