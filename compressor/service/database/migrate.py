"""Older databases become present ones; newer ones are refused."""

from __future__ import annotations

from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, inspect, text

from compressor.errors import UsageError
from compressor.service.database import migrations
from compressor.service.database.engine import Database
from compressor.service.errors import NewerDatabaseError

_LOCK = 0x636F6D71


def migrate(database: Database) -> None:
    """Make the tables, or bring older ones up to date, all or nothing. Several servers may do so at once.

    Raises:
        NewerDatabaseError: a newer version of this program wrote it.
        UsageError: it holds tables of another program.
        DatabaseAwayError: it does not answer.
    """
    config = configuration()
    scripts = ScriptDirectory.from_config(config)
    with database.connect() as connection:
        if not database.is_sqlite:
            connection.execute(text(f"SELECT pg_advisory_xact_lock({_LOCK})"))
        found = set(MigrationContext.configure(connection).get_current_heads())
        if found == set(scripts.get_heads()):
            return
        known = {script.revision for script in scripts.walk_revisions()}
        if unknown := sorted(found - known):
            raise NewerDatabaseError(
                f"The database {database.shown} was written by a newer version of this program (revision "
                f"{unknown[0]}, and this one knows {', '.join(sorted(known))}); install that version, or name another "
                "data folder."
            )
        if not found:
            _require_empty(database, connection)
        config.attributes["connection"] = connection
        command.upgrade(config, "head")
        connection.commit()


def configuration() -> Config:
    """What Alembic is told: where revisions are. ``attributes["connection"]`` is to be a connection."""
    config = Config()
    # Percent signs stand for variables in Alembic's settings.
    config.set_main_option("script_location", str(Path(migrations.__file__).parent).replace("%", "%%"))
    return config


def _require_empty(database: Database, connection: Connection) -> None:
    if "jobs" in (there := inspect(connection).get_table_names()) or "projects" in there:
        raise UsageError(
            f"The database {database.shown} holds tables that this program did not make; name an empty database."
        )
