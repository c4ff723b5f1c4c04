"""What SQLite needs to serve many threads: a journal that lets readers read, and transactions that begin as writers."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Engine, event
from sqlalchemy.exc import DisconnectionError

TRIES = 3
_BUSY_S = 15.0
_PRAGMAS = ("journal_mode=WAL", "synchronous=NORMAL", "foreign_keys=ON", "temp_store=MEMORY", "cache_size=-4000")


def is_locked(error: BaseException | None) -> bool:
    """Whether another process has the file."""
    return isinstance(error, sqlite3.OperationalError) and "locked" in str(error)


def connector(file: Path, *, make: bool) -> Callable[[], sqlite3.Connection]:
    """Opens the file. Where it is gone that is an error, unless it is to be made: an empty one has no tables."""
    address = f"{file.as_uri()}?mode={'rwc' if make else 'rw'}"

    def connect() -> sqlite3.Connection:
        # Transactions are begun by name, see ``prepare``; threads hand connections on, one at a time.
        connection = sqlite3.connect(
            address, uri=True, timeout=_BUSY_S, isolation_level=None, check_same_thread=False, cached_statements=256
        )
        try:
            for pragma in _PRAGMAS:
                connection.execute(f"PRAGMA {pragma}")
        except BaseException:
            connection.close()
            raise
        return connection

    return connect


def prepare(engine: Engine, write: str) -> None:
    """Begin transactions of connections with the execution option ``write`` as writers, and notice a file that is no
    longer the one that was opened: what is written to a deleted file is lost."""

    @event.listens_for(engine, "connect")
    def opened(connection: Any, record: Any) -> None:
        record.info["file"] = _identity(engine)

    @event.listens_for(engine, "checkout")
    def taken(connection: Any, record: Any, proxy: Any) -> None:
        if record.info.get("file") != _identity(engine):
            raise DisconnectionError("the file is another, or gone")

    @event.listens_for(engine, "begin")
    def begun(connection: Connection) -> None:
        is_writer = connection.get_execution_options().get(write)
        connection.exec_driver_sql("BEGIN IMMEDIATE" if is_writer else "BEGIN")


def _identity(engine: Engine) -> tuple[int, int] | None:
    try:
        status = os.stat(engine.url.database or "")
    except OSError:
        return None
    return status.st_dev, status.st_ino
