"""Alembic's environment: runs revisions on the connection that ``compressor.service.database.migrate`` hands over."""

from __future__ import annotations

from alembic import context

from compressor.service.database.schema import METADATA

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=METADATA,
    render_as_batch=True,  # SQLite cannot alter tables: they are made anew
)
with context.begin_transaction():
    context.run_migrations()
