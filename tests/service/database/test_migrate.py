"""Older databases become present ones; newer ones are refused."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from sqlalchemy import inspect, text

from compressor.errors import UsageError
from compressor.service.clock import Clock
from compressor.service.database.engine import Database
from compressor.service.database.migrate import migrate
from compressor.service.database.schema import METADATA
from compressor.service.errors import NewerDatabaseError
from tests.service.postgres import PostgresServer


@pytest.fixture(params=["sqlite", "postgres"])
def empty_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'empty.sqlite'}"
    server: PostgresServer = request.getfixturevalue("postgres_server")
    return server.url(server.make())


def test_revisions_make_the_tables_that_the_program_has(empty_url: str) -> None:
    database = Database(empty_url, clock=Clock())
    migrate(database)
    with database.connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True, "compare_server_default": True})
        assert compare_metadata(context, METADATA) == []
        found = inspect(connection)
        for table in METADATA.sorted_tables:
            indexes = {index["name"] for index in found.get_indexes(table.name)}
            unique = {constraint["name"] for constraint in found.get_unique_constraints(table.name)}
            assert {index.name for index in table.indexes} <= indexes | unique
            assert {column.name: column.nullable for column in table.columns} == {
                column["name"]: column["nullable"] for column in found.get_columns(table.name)
            }
    database.dispose()


def test_migrating_again_changes_nothing_and_many_may_at_once(empty_url: str) -> None:
    failures: list[Exception] = []

    def run() -> None:
        try:
            database = Database(empty_url, clock=Clock())
            migrate(database)
            migrate(database)
            database.check()
            database.dispose()
        except Exception as error:
            failures.append(error)

    threads = [threading.Thread(target=run) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []


def test_a_newer_database_is_refused(database_url: str) -> None:
    database = Database(database_url, clock=Clock())
    with database.begin() as session:
        session.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    with pytest.raises(NewerDatabaseError, match=r"newer version .*9999"):
        migrate(database)
    database.dispose()


def test_a_database_of_another_program_is_refused(empty_url: str) -> None:
    database = Database(empty_url, clock=Clock())
    with database.connect() as connection:
        connection.execute(text("CREATE TABLE jobs (id INTEGER)"))
        connection.commit()
    with pytest.raises(UsageError, match="did not make"):
        migrate(database)
    database.dispose()


def test_a_migration_that_fails_leaves_nothing(empty_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from alembic import op

    real, calls = op.create_table, []

    def failing(name: str, *arguments: object, **options: object) -> object:
        calls.append(name)
        if len(calls) == 4:
            raise KeyError("a mistake")
        return real(name, *arguments, **options)

    monkeypatch.setattr(op, "create_table", failing)
    database = Database(empty_url, clock=Clock())
    with pytest.raises(KeyError):
        migrate(database)
    monkeypatch.undo()
    with database.connect() as connection:
        assert inspect(connection).get_table_names() == []
    migrate(database)
    database.check()
    database.dispose()
