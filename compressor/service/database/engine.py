"""How the database is reached: transactions, one writer at a time on SQLite, and what is said when it is away."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Engine, create_engine, text
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError, DBAPIError, SQLAlchemyError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from sqlalchemy.orm import Session

from compressor.errors import MissingDependencyError, UsageError
from compressor.service.clock import Clock
from compressor.service.database import sqlite
from compressor.service.errors import DatabaseAwayError, RefusedError, ServiceError, StorageFullError

_POOL, _MORE, _WAIT_S = 20, 44, 10.0  # as many connections as the app has threads, and some
_WRITER_WAIT_S = 30.0
_POSTGRES = ("postgres", "postgresql", "postgresql+psycopg", "postgresql+psycopg2")
_FULL = ("database or disk is full", "could not extend file", "no space left on device", "disk full")
_WRITE = "compressor_write"


class Database:
    """A database by its URL: ``sqlite:///FILE`` or ``postgresql://...``. Nothing is opened until it is used.

    Any thread may use it. It comes back by itself when it was away.

    Raises:
        UsageError: the URL names another kind of database.
        MissingDependencyError: Postgres without its driver.
    """

    def __init__(self, url: str, *, clock: Clock) -> None:
        self.clock = clock
        self.url = _checked(url)
        self.is_sqlite = self.url.get_backend_name() == "sqlite"
        self._engine = _engine(self.url, is_sqlite=self.is_sqlite)
        self._writers = self._engine.execution_options(**{_WRITE: True})
        self._writer = threading.Lock()
        self._owner: int | None = None

    @property
    def file(self) -> Path | None:
        """The file of a SQLite database."""
        return Path(self.url.database or "") if self.is_sqlite else None

    @property
    def shown(self) -> str:
        """The URL without its password, for messages."""
        return self.url.render_as_string(hide_password=True)

    @contextmanager
    def begin(self, *, write: bool = True) -> Iterator[Session]:
        """A session in a transaction: committed where the block ends well, else rolled back.

        On SQLite a writer waits for the one before it and then has the database to itself (``BEGIN IMMEDIATE``);
        readers wait for nobody. Blocks must be short, call nothing that waits, and not be nested.

        Raises:
            DatabaseAwayError: it does not answer, or the connection was lost; nothing was written (or, where the
                connection was lost in the commit, all of it or nothing).
            StorageFullError: its disk is full.
        """
        with self._turn(write), self._told(), self._connected(write) as connection:
            with Session(bind=connection, expire_on_commit=False, autoflush=False) as session:
                yield session
                session.flush()
            connection.commit()

    def check(self) -> None:
        """Ask it something. Raises ``DatabaseAwayError``."""
        with self.begin(write=False) as session:
            session.execute(text("SELECT name FROM projects LIMIT 1")).all()

    @contextmanager
    def connect(self) -> Iterator[Connection]:
        """A connection of its own for migrations, which make a SQLite file that is not there."""
        engine = _engine(self.url, is_sqlite=self.is_sqlite, make=True)
        try:
            with self._turn(True), self._told(), engine.connect() as connection:
                yield connection.execution_options(**{_WRITE: True})
        finally:
            engine.dispose()

    def dispose(self) -> None:
        """Close all connections."""
        self._engine.dispose()

    @contextmanager
    def _turn(self, write: bool) -> Iterator[None]:
        """Writers of SQLite take turns here, where waiting costs nothing, and not at the file's lock."""
        if not (write and self.is_sqlite):
            yield
            return
        if self._owner == threading.get_ident():
            raise RuntimeError("transactions that write are not nested")
        if not self._writer.acquire(timeout=_WRITER_WAIT_S):
            raise DatabaseAwayError("The database is busy: its writer did not end; try again.")
        self._owner = threading.get_ident()
        try:
            yield
        finally:
            self._owner = None
            self._writer.release()

    @contextmanager
    def _connected(self, write: bool) -> Iterator[Connection]:
        """A connection with its transaction begun."""
        connection = (self._writers if write else self._engine).connect()
        try:
            for left in reversed(range(sqlite.TRIES)):
                try:
                    connection.begin()
                    break
                except DBAPIError as error:
                    # Another process, such as a backup, has the file for longer than the driver waits.
                    if not left or not sqlite.is_locked(error.orig):
                        raise
                    with suppress(SQLAlchemyError):  # beginning anew tells, if the connection is gone
                        connection.rollback()
                    time.sleep(0.05)
            yield connection
        finally:
            # Closing rolls back what was not committed; over a connection that is gone there is nothing to roll back.
            with suppress(DBAPIError):
                connection.close()

    @contextmanager
    def _told(self) -> Iterator[None]:
        try:
            yield
        except PoolTimeoutError as error:
            raise DatabaseAwayError("The database is busy: no connection came free; try again.") from error
        except DBAPIError as error:
            told = self._error(error)
            if told is None:
                raise
            raise told from error

    def _error(self, error: DBAPIError) -> ServiceError | None:
        """What to say of an error of the driver; None for a mistake of the program."""
        reason = (str(error.orig).strip().splitlines() or [type(error.orig).__name__])[0]
        if any(words in str(error.orig).lower() for words in _FULL):
            return StorageFullError(f"The disk of the database is full ({reason}). Free some space; nothing was lost.")
        kind = type(error).__name__
        if error.connection_invalidated or kind in ("OperationalError", "InterfaceError", "InternalError"):
            return DatabaseAwayError(f"The database {self.shown} does not answer ({reason}); try again.")
        if kind == "DataError":
            return RefusedError(f"The database cannot hold what was sent ({reason}).")
        if self.is_sqlite and kind == "DatabaseError":
            return DatabaseAwayError(f"The database {self.shown} cannot be used ({reason}).")
        return None


def _checked(text: str) -> URL:
    try:
        url = make_url(text)
    except (ArgumentError, ValueError) as error:
        raise UsageError(
            "The database URL cannot be read; expected sqlite:////path/to/file or postgresql://user:password@host/name."
        ) from error
    if url.drivername in _POSTGRES:
        try:
            import psycopg  # noqa: F401
        except ImportError as error:
            raise MissingDependencyError(
                "Postgres needs its driver; install it with pip install 'compressor[postgres]'."
            ) from error
        return url.set(drivername="postgresql+psycopg")
    if url.drivername not in ("sqlite", "sqlite+pysqlite"):
        raise UsageError(f"The database {url.drivername!r} is not supported; expected sqlite or postgresql.")
    if not url.database or url.database == ":memory:" or url.query:
        raise UsageError("A SQLite database must be a file: sqlite:////path/to/file.")
    return url.set(database=str(Path(url.database).absolute()))


def _engine(url: URL, *, is_sqlite: bool, make: bool = False) -> Engine:
    pool: dict[str, Any] = {"pool_size": _POOL, "max_overflow": _MORE, "pool_timeout": _WAIT_S}
    if is_sqlite:
        engine = create_engine(url, creator=sqlite.connector(Path(url.database or ""), make=make), **pool)
        sqlite.prepare(engine, _WRITE)
        return engine
    settings = {
        "connect_timeout": 5,
        "keepalives_idle": 10,
        "keepalives_interval": 5,
        "keepalives_count": 3,
        "application_name": "compressor",
        "options": "-c statement_timeout=30000 -c lock_timeout=20000 -c idle_in_transaction_session_timeout=60000",
    }
    for name in set(settings) & set(url.query):  # the user knows better
        settings.pop(name)
    return create_engine(url, pool_pre_ping=True, connect_args=settings, **pool)
