"""How the database is reached: transactions, one writer at a time on SQLite, and what is said when it is away."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy.orm import Session

from compressor.service.clock import Clock


class Database:
    """A database by its URL: ``sqlite:///FILE`` or ``postgresql://...``. Nothing is opened until it is used.

    Any thread may use it. It comes back by itself when it was away.

    Raises:
        UsageError: the URL names another kind of database.
        MissingDependencyError: Postgres without its driver.
    """

    def __init__(self, url: str, *, clock: Clock) -> None:
        raise NotImplementedError

    @property
    def is_sqlite(self) -> bool:
        raise NotImplementedError

    @contextmanager
    def begin(self, *, write: bool = True) -> Iterator[Session]:
        """A session in a transaction: committed where the block ends well, else rolled back.

        On SQLite a writer waits for the one before it and then has the database to itself (``BEGIN IMMEDIATE``); readers
        wait for nobody. Blocks must be short, call nothing that waits, and not be nested.

        Raises:
            DatabaseAwayError: it does not answer, or the connection was lost; nothing was written (or, where the
                connection was lost in the commit, all of it or nothing).
            StorageFullError: its disk is full.
        """
        raise NotImplementedError
        yield

    def check(self) -> None:
        """Ask it something. Raises ``DatabaseAwayError``."""
        raise NotImplementedError

    def dispose(self) -> None:
        """Close all connections."""
        raise NotImplementedError
