"""Older databases become present ones; newer ones are refused."""

from __future__ import annotations

from compressor.service.database.engine import Database


def migrate(database: Database) -> None:
    """Make the tables, or bring older ones up to date. Several servers may do so at once.

    Raises:
        NewerDatabaseError: a newer version of this program wrote it.
        DatabaseAwayError: it does not answer.
    """
    raise NotImplementedError
