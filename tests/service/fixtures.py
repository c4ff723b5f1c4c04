"""Fixtures of all tests of the service: a clock that they move, databases of both kinds, and services on them.

``services`` and ``database_url`` are there twice, on SQLite and on Postgres; ``sqlite_services`` is for what does not
depend on the database.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from compressor.service.clock import Clock
from compressor.service.database.engine import Database
from compressor.service.database.migrate import migrate
from compressor.service.services import Services, services_of
from compressor.service.settings import settings_of
from tests.service.clocks import FakeClock
from tests.service.postgres import PostgresServer
from tests.service.s3_server import s3_serving

ServicesMaker = Callable[..., Services]


@pytest.fixture(autouse=True)
def _no_settings_of_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("COMPRESSOR_")]:
        monkeypatch.delenv(name)


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[PostgresServer]:
    server = PostgresServer()
    yield server
    server.close()


@pytest.fixture(scope="session")
def bucket() -> Iterator[str]:
    """The URL of a bucket on a server that speaks S3."""
    with s3_serving() as url:
        yield url


def _migrated(url: str) -> None:
    database = Database(url, clock=Clock())
    migrate(database)
    database.dispose()


@pytest.fixture(scope="session")
def sqlite_template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file with all tables, to be copied."""
    file = tmp_path_factory.mktemp("template") / "service.sqlite"
    _migrated(f"sqlite:///{file}")
    return file


@pytest.fixture(scope="session")
def postgres_template(postgres_server: PostgresServer) -> str:
    """A database with all tables, to be copied."""
    name = postgres_server.make()
    _migrated(postgres_server.url(name))
    return name


@pytest.fixture
def sqlite_url(tmp_path: Path, sqlite_template: Path) -> str:
    """A database of SQLite with all tables."""
    file = tmp_path / "data" / "service.sqlite"
    file.parent.mkdir(exist_ok=True)
    shutil.copyfile(sqlite_template, file)
    return f"sqlite:///{file}"


@pytest.fixture
def postgres_url(postgres_server: PostgresServer, postgres_template: str) -> Iterator[str]:
    """A database of Postgres with all tables."""
    name = postgres_server.make(postgres_template)
    yield postgres_server.url(name)
    postgres_server.drop(name)


@pytest.fixture(params=["sqlite", "postgres"])
def database_url(request: pytest.FixtureRequest) -> str:
    """A database with all tables: of SQLite, then of Postgres."""
    url: str = request.getfixturevalue(f"{request.param}_url")
    return url


@pytest.fixture
def make_services(tmp_path: Path, clock: FakeClock) -> Iterator[ServicesMaker]:
    """Services with settings of the test's own, on a database by its URL."""
    made: list[Services] = []

    def make(database_url: str, *, real_clock: bool = False, **settings: Any) -> Services:
        chosen = settings_of(**{"data_dir": tmp_path / "data", "database_url": database_url, **settings})
        made.append(services_of(chosen, Clock() if real_clock else clock))
        return made[-1]

    yield make
    for services in made:
        services.close()


@pytest.fixture
def services(make_services: ServicesMaker, database_url: str) -> Services:
    """Services on SQLite, then on Postgres."""
    return make_services(database_url)


@pytest.fixture
def sqlite_services(make_services: ServicesMaker, sqlite_url: str) -> Services:
    """Services on SQLite."""
    return make_services(sqlite_url)
