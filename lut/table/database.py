"""The SQLite file under the table: opening, checking, locking, and what happens when something is wrong with it.

Write-ahead logging lets one process write while others read; a writer that finds the lock taken waits. Every write is
one transaction, so a process killed at any moment leaves the file as it was before or after that write.

A damaged file is never repaired in place and never deleted: it is renamed, with its write-ahead log, to
``NAME.corrupt-TIME`` and a fresh table takes its place. SQLite finds the log by the name of the table, so a table must
not be renamed while anyone has it open. Hence the gate, an empty SQLite file ``NAME.lock``: who uses the table holds a
shared lock on it, who sets the table aside an exclusive one. (SQLite's locks work on every system and vanish with the
process that holds them.) Of several processes that find the damage exactly one moves the file.
"""

from __future__ import annotations

import logging
import os
import shutil
import sqlite3
import threading
import time
import weakref
from collections.abc import Callable, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

from lut.errors import (
    CorruptTableError,
    DiskFullError,
    LutError,
    NotATableError,
    TableAccessError,
    TableBusyError,
    TableVersionError,
)

SCHEMA_VERSION = 1
APPLICATION_ID = 0x4C555431  # "LUT1": tells our files from other people's SQLite files
_SUFFIXES = (".sqlite", ".sqlite3", ".db", ".lut")
_TABLES = """
CREATE TABLE IF NOT EXISTS meta (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS targets (id INTEGER PRIMARY KEY, key TEXT NOT NULL UNIQUE);
CREATE TABLE IF NOT EXISTS signatures (id INTEGER PRIMARY KEY, key TEXT NOT NULL UNIQUE);
CREATE TABLE IF NOT EXISTS points (
    target INTEGER NOT NULL REFERENCES targets(id), signature INTEGER NOT NULL REFERENCES signatures(id),
    channels_in INTEGER NOT NULL, channels_out INTEGER NOT NULL,
    median_ms REAL, spread REAL NOT NULL, repeats INTEGER NOT NULL,
    status TEXT NOT NULL, error TEXT NOT NULL, measured_at TEXT NOT NULL,
    PRIMARY KEY (target, signature, channels_in, channels_out)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS calibrations (
    target INTEGER NOT NULL REFERENCES targets(id), model TEXT NOT NULL, body TEXT NOT NULL,
    PRIMARY KEY (target, model)) WITHOUT ROWID;
"""
_log = logging.getLogger(__name__)
_T = TypeVar("_T")


def _code(error: sqlite3.Error) -> int:
    """Primary result code; Python leaves it out of errors that it raises itself."""
    return int(getattr(error, "sqlite_errorcode", 0)) & 0xFF


def _is_damage(error: sqlite3.Error) -> bool:
    return _code(error) in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)


def explain(error: sqlite3.Error, path: Path) -> LutError:
    """What an SQLite error means for the user of the table at ``path``."""
    code = _code(error)
    try:
        no_space = shutil.disk_usage(path.parent).free < 64 * 1024
    except OSError:
        no_space = False
    if code == sqlite3.SQLITE_FULL or (code == sqlite3.SQLITE_IOERR and no_space):
        return DiskFullError(
            f"No space left to write the latency table {path}: free some and start again (it goes on from what was "
            "measured), or name a file on another disk."
        )
    if code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
        return TableBusyError(f"The latency table {path} stayed locked by another process: try again when it is done.")
    if _is_damage(error):
        return CorruptTableError(f"The latency table {path} is damaged ({error}): use another file or measure again.")
    return TableAccessError(f"The latency table {path} cannot be used ({error}): check its folder and permissions.")


class Database:
    """One connection to one table file.

    It is closed before a fork (SQLite connections must not cross one) and opens again on the next use, in both
    processes; it may be shared between threads.

    Args:
        path: the file; made with its folders if missing, unless ``read_only``.
        read_only: never create, change or set aside; a damaged file raises ``CorruptTableError``.
        timeout_s: how long to wait for other writers, seconds.

    Raises:
        NotATableError, TableVersionError, CorruptTableError, TableBusyError, DiskFullError, TableAccessError.
    """

    def __init__(self, path: Path, *, read_only: bool = False, timeout_s: float = 60.0) -> None:
        self.path = path
        self.read_only = read_only
        self.set_aside: Path | None = None
        self._timeout_s = timeout_s
        self._lock = threading.RLock()
        self._connection: sqlite3.Connection | None = None
        self._gate: sqlite3.Connection | None = None
        self._inode: tuple[int, int] | None = None
        self._attempt(self._current)
        _open_databases.add(self)

    def read(self, sql: str, values: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        """All rows of one query, from one consistent state of the table."""
        with self._lock:
            return self._attempt(lambda: self._current().execute(sql, values).fetchall())

    def write(self, work: Callable[[sqlite3.Connection], _T]) -> _T:
        """Run ``work(connection)`` as one transaction: all of it is stored or nothing.

        ``work`` may run twice (a second time on a fresh file, if the first was found damaged).
        """
        if self.read_only:
            raise TableAccessError(f"The latency table {self.path} was opened for reading only: open it for writing.")

        def transaction() -> _T:
            connection = self._current()
            connection.execute("BEGIN IMMEDIATE")
            try:
                result = work(connection)
                connection.execute("COMMIT")
            except BaseException:
                if connection.in_transaction:
                    with suppress(sqlite3.Error):  # the first error is the one to report
                        connection.execute("ROLLBACK")
                raise
            return result

        with self._lock:
            return self._attempt(transaction)

    def close(self) -> None:
        """Close the connection; using the object again opens it again."""
        with self._lock:
            for connection in (self._connection, self._gate):
                if connection is not None:
                    connection.close()
            self._connection = self._gate = None

    def _attempt(self, work: Callable[[], _T]) -> _T:
        """Do it; if the file turns out to be damaged, set it aside and do it once more on a fresh one."""
        try:
            return work()
        except sqlite3.Error as error:
            if not _is_damage(error) or self.read_only:
                raise explain(error, self.path) from error
        try:
            self.close()
            self._replace_damaged()
            return work()
        except sqlite3.Error as error:
            raise explain(error, self.path) from error

    def _identity(self) -> tuple[int, int] | None:
        try:
            status = self.path.stat()
        except OSError:
            return None
        return status.st_dev, status.st_ino

    def _current(self) -> sqlite3.Connection:
        # Someone may delete or replace the file by hand; writing on would fill a file that has no name any more.
        if self._connection is not None and self._inode == self._identity():
            return self._connection
        self.close()
        if self.read_only:
            connection = self._connect_for_reading()
        else:
            self._make_folder()
            self._gate = self._connect(self._gate_uri())
            self._gate.execute("BEGIN")
            self._gate.execute("SELECT count(*) FROM sqlite_master").fetchone()  # takes the shared lock
            connection = self._connect(f"{self.path.absolute().as_uri()}?mode=rwc")
        try:
            self._check(connection)
            if not self.read_only:
                self._prepare(connection)
        except BaseException:
            connection.close()
            self.close()
            raise
        self._connection, self._inode = connection, self._identity()
        return connection

    def _replace_damaged(self) -> None:
        """Alone with the file: look again, and move it out of the way if it is damaged still."""
        gate = self._connect(self._gate_uri())
        try:
            try:
                gate.execute("BEGIN EXCLUSIVE")
            except sqlite3.OperationalError as error:
                raise CorruptTableError(
                    f"The latency table {self.path} is damaged and other processes still have it open: stop them and "
                    "start again; it is then set aside."
                ) from error
            connection = self._connect(f"{self.path.absolute().as_uri()}?mode=rwc")
            try:
                self._check(connection)
                return  # another process was faster
            except sqlite3.DatabaseError as error:
                if not _is_damage(error):
                    raise
                reason = " ".join(str(error).split())
            finally:
                connection.close()
            self._set_aside(reason)
        finally:
            gate.close()

    def _make_folder(self) -> None:
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise TableAccessError(
                f"The folder of the latency table {self.path} cannot be made ({error.strerror}): name another file."
            ) from error
        if self.path.is_dir():
            raise NotATableError(f"{self.path} is a folder; expected a file for the latency table: name one in it.")
        for place in (self.path, Path(f"{self.path}.lock")):
            if place.exists() and not place.is_file():
                raise NotATableError(f"{place} is no file; name another one for the latency table.")
        if self.path.is_file() and self.path.stat().st_size:
            self._require_ours("its first bytes are those of another format")  # before the gate is made beside it

    def _gate_uri(self) -> str:
        return f"{Path(f'{self.path}.lock').absolute().as_uri()}?mode=rwc"

    def _connect(self, uri: str) -> sqlite3.Connection:
        return sqlite3.connect(
            uri, uri=True, timeout=self._timeout_s, isolation_level=None, check_same_thread=False, cached_statements=64
        )

    def _connect_for_reading(self) -> sqlite3.Connection:
        if not self.path.is_file():
            raise TableAccessError(f"There is no latency table {self.path}: check the name, or measure one first.")
        # A table in write-ahead mode needs a side file to be read; in a folder we may not write to, it cannot change
        # under us either way unless its owner is at work, and then the side files are there already.
        frozen = not os.access(self.path.parent, os.W_OK) and not Path(f"{self.path}-wal").exists()
        return self._connect(f"{self.path.absolute().as_uri()}?mode=ro{'&immutable=1' if frozen else ''}")

    def _check(self, connection: sqlite3.Connection) -> None:
        """Raises ``sqlite3.DatabaseError`` (corrupt), ``NotATableError`` or ``TableVersionError``."""
        verdict = connection.execute("PRAGMA quick_check(1)").fetchone()[0]
        if verdict != "ok":
            damage = sqlite3.DatabaseError(verdict)
            damage.sqlite_errorcode = sqlite3.SQLITE_CORRUPT
            raise damage
        # In this order: another process may be creating the tables, and sets the owner in the same transaction.
        names = {row[0] for row in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
        owner = connection.execute("PRAGMA application_id").fetchone()[0]
        if owner not in (0, APPLICATION_ID) or (owner == 0 and names):
            raise NotATableError(f"{self.path} is an SQLite file but no latency table: name another file.")
        if not names:
            if self.read_only:
                raise NotATableError(f"{self.path} holds no latency table: name another file.")
            return
        row = connection.execute("SELECT value FROM meta WHERE name = 'schema_version'").fetchone()
        if row is None or not str(row[0]).isdigit():
            raise NotATableError(f"{self.path} has no schema version: it is no latency table; name another file.")
        if int(row[0]) > SCHEMA_VERSION:
            raise TableVersionError(
                f"The latency table {self.path} has schema version {row[0]}, this program reads up to "
                f"{SCHEMA_VERSION}: update the program or name another file."
            )

    def _prepare(self, connection: sqlite3.Connection) -> None:
        deadline = time.monotonic() + self._timeout_s
        while True:  # SQLite does not wait by itself when two processes switch a new file over at once
            try:
                connection.execute("PRAGMA journal_mode = WAL").fetchone()
                break
            except sqlite3.OperationalError as error:
                if _code(error) not in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED) or time.monotonic() > deadline:
                    raise
                time.sleep(0.02)
        # In write-ahead mode NORMAL keeps every commit through a kill; only a power cut may cost the last few.
        connection.execute("PRAGMA synchronous = NORMAL")
        if connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'calibrations'").fetchone():
            return
        connection.execute("BEGIN IMMEDIATE")
        try:
            connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
            for statement in _TABLES.split(";"):
                connection.execute(statement)
            connection.execute("INSERT OR IGNORE INTO meta VALUES ('schema_version', ?)", (str(SCHEMA_VERSION),))
            connection.execute("COMMIT")
        except BaseException:
            if connection.in_transaction:
                with suppress(sqlite3.Error):  # the first error is the one to report
                    connection.execute("ROLLBACK")
            raise

    def _require_ours(self, reason: str) -> None:
        """Raise ``NotATableError`` for a file that neither looks like a table nor is named like one."""
        try:
            with self.path.open("rb") as file:
                ours = file.read(16) == b"SQLite format 3\0"
        except OSError as error:
            raise TableAccessError(f"{self.path} cannot be read ({error.strerror}): check its permissions.") from error
        if not ours and self.path.suffix not in _SUFFIXES:
            raise NotATableError(f"{self.path} is no latency table ({reason}): name another file.")

    def _set_aside(self, reason: str) -> None:
        self._require_ours(reason)
        stamp = datetime.now(UTC).strftime("%Y%m%dT%H%M%SZ")
        aside = self.path.with_name(f"{self.path.name}.corrupt-{stamp}")
        while aside.exists():
            time.sleep(0.01)
            aside = self.path.with_name(f"{self.path.name}.corrupt-{stamp}-{time.time_ns() % 10**9:09d}")
        # The log first: next to a fresh table it would be replayed into it.
        for suffix in ("-wal", "-shm", ""):
            part = Path(f"{self.path}{suffix}")
            if part.exists():
                os.replace(part, f"{aside}{suffix}")
        self.set_aside = aside
        _log.warning(
            "The latency table %s is damaged (%s). It was set aside as %s, nothing was deleted, and a new table was "
            "started; 'compress lut merge' takes over the rows that can still be read.",
            self.path,
            reason,
            aside,
        )


_open_databases: weakref.WeakSet[Database] = weakref.WeakSet()


def _close_before_fork() -> None:
    for database in list(_open_databases):
        database.close()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_close_before_fork)
