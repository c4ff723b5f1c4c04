"""How the database is reached, and what is said when it is away."""

from __future__ import annotations

import shutil
import sqlite3
import threading
from pathlib import Path

import pytest
from sqlalchemy import select, text

from compressor.errors import UsageError
from compressor.service.clock import Clock
from compressor.service.database.engine import Database
from compressor.service.database.tables import ProjectRow
from compressor.service.errors import DatabaseAwayError, StorageFullError
from compressor.service.services import Services, server_lock
from compressor.service.settings import settings_of
from tests.service.postgres import PostgresServer
from tests.service.queue.submitting import claim, submit


def _project(name: str) -> ProjectRow:
    return ProjectRow(name=name, created_at=Clock().now())


def test_a_block_that_fails_writes_nothing(services: Services) -> None:
    def fail() -> None:
        with services.database.begin() as session:
            session.add(_project("lost"))
            session.flush()
            raise KeyError("a mistake")

    with pytest.raises(KeyError):
        fail()
    with services.database.begin() as session:
        session.add(_project("kept"))
    with services.database.begin(write=False) as session:
        assert session.scalars(select(ProjectRow.name)).all() == ["kept"]


def test_readers_do_not_wait_for_a_writer(services: Services) -> None:
    submit(services)
    with services.database.begin() as session:
        session.add(_project("unfinished"))
        session.flush()
        found: list[int] = []
        reader = threading.Thread(target=lambda: found.append(len(services.jobs.list())))
        reader.start()
        reader.join(10)
        assert found == [1]


def test_many_writers_and_readers_never_find_it_locked(services: Services) -> None:
    failures: list[Exception] = []

    def write(number: int) -> None:
        try:
            for count in range(10):
                submit(services, name=f"{number}-{count}")
                services.jobs.list(limit=5)
        except Exception as error:
            failures.append(error)

    threads = [threading.Thread(target=write, args=(number,)) for number in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert services.jobs.counts()["queued"] == 120


def test_a_writer_waits_for_another_process(sqlite_services: Services, sqlite_url: str) -> None:
    other = sqlite3.connect(sqlite_url.removeprefix("sqlite:///"), isolation_level=None, check_same_thread=False)
    other.execute("BEGIN IMMEDIATE")
    timer = threading.Timer(0.5, lambda: other.execute("COMMIT"))
    timer.start()
    submit(sqlite_services)
    timer.join()
    other.close()
    assert sqlite_services.jobs.counts()["queued"] == 1


def test_writers_are_not_nested(sqlite_services: Services) -> None:
    with (
        sqlite_services.database.begin(),
        pytest.raises(RuntimeError, match="nested"),
        sqlite_services.database.begin(),
    ):
        pass
    submit(sqlite_services)


def test_a_file_that_vanishes_is_away_until_it_is_back(sqlite_services: Services, sqlite_url: str) -> None:
    services, file = sqlite_services, Path(sqlite_url.removeprefix("sqlite:///"))
    job = submit(services)
    aside = file.with_name("aside")
    aside.mkdir()
    for part in file.parent.glob("service.sqlite*"):
        shutil.move(part, aside / part.name)
    for act in (services.check, services.jobs.list, lambda: submit(services), lambda: claim(services)):
        with pytest.raises(DatabaseAwayError, match="does not answer"):
            act()
    assert not file.exists(), "no empty file is made in its place"
    for part in aside.glob("service.sqlite*"):
        shutil.move(part, file.parent / part.name)
    services.check()
    assert claim(services).job.id == job.id


def test_a_file_that_is_replaced_is_seen(sqlite_services: Services, sqlite_url: str, sqlite_template: Path) -> None:
    services, file = sqlite_services, Path(sqlite_url.removeprefix("sqlite:///"))
    submit(services)
    for part in file.parent.glob("service.sqlite*"):
        part.unlink()
    shutil.copyfile(sqlite_template, file)
    assert services.jobs.list() == []
    submit(services)
    assert len(services.jobs.list()) == 1


def test_no_sqlite_database_is_a_line(tmp_path: Path) -> None:
    file = tmp_path / "x.sqlite"
    file.write_text("This is no database, but long enough to be looked at as if it were one. " * 30)
    with pytest.raises(DatabaseAwayError, match="not a database"), Database(f"sqlite:///{file}", clock=Clock()).begin():
        pass


def test_postgres_that_is_stopped_comes_back_by_itself(
    postgres_server: PostgresServer, make_services: object, postgres_url: str
) -> None:
    services: Services = make_services(postgres_url)  # type: ignore[operator]
    job = submit(services)
    postgres_server.stop()
    try:
        for act in (services.check, services.jobs.list, lambda: submit(services), lambda: claim(services)):
            with pytest.raises(DatabaseAwayError, match="does not answer"):
                act()
    finally:
        postgres_server.start()
    services.check()
    assert claim(services).job.id == job.id


def test_a_connection_that_is_lost_in_a_transaction_is_told(make_services: object, postgres_url: str) -> None:
    services: Services = make_services(postgres_url)  # type: ignore[operator]

    def lose() -> None:
        with services.database.begin() as session:
            session.add(_project("lost"))
            session.flush()
            own = session.scalar(text("SELECT pg_backend_pid()"))
            with services.database.begin() as other:
                other.execute(text(f"SELECT pg_terminate_backend({own})"))
            session.execute(text("SELECT 1"))

    with pytest.raises(DatabaseAwayError):
        lose()
    assert submit(services).state == "queued"


def test_a_full_disk_is_told_and_nothing_is_lost(sqlite_services: Services) -> None:
    services = sqlite_services
    kept = submit(services)
    with services.database.begin() as session:
        pages = session.scalar(text("PRAGMA page_count"))
        session.execute(text(f"PRAGMA max_page_count = {pages}"))

    def fill() -> None:
        for _ in range(200):
            submit(services, recipe={"text": "x" * 20_000})

    with pytest.raises(StorageFullError, match="full"):
        fill()
    assert services.jobs.get(kept.id) == kept


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("mysql://x/y", "not supported"),
        ("sqlite://", "must be a file"),
        ("sqlite:///:memory:", "must be a file"),
        ("no url", "cannot be read"),
    ],
)
def test_other_databases_are_refused(url: str, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        Database(url, clock=Clock())


def test_passwords_are_not_shown() -> None:
    database = Database("postgres://me:secret@localhost:1/x", clock=Clock())
    with pytest.raises(DatabaseAwayError) as told:
        database.check()
    assert "secret" not in str(told.value)
    assert "localhost" in str(told.value)


def test_the_second_server_on_a_folder_is_refused(tmp_path: Path) -> None:
    settings = settings_of(data_dir=tmp_path / "data")
    first = server_lock(settings)
    assert first is not None
    with pytest.raises(UsageError, match="Another process"):
        server_lock(settings)
    first.release()
    second = server_lock(settings)
    assert second is not None
    second.release()
    assert server_lock(settings_of(data_dir=tmp_path, database_url="postgresql://localhost/x")) is None
