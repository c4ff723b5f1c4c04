"""``compress keys``: who may use a server. Works on the server's database, on the server's machine."""

from __future__ import annotations

import getpass
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from compressor.cli.output import Output, output_options
from compressor.errors import MissingDependencyError, UsageError

if TYPE_CHECKING:
    from compressor.service.access.audit import AuditRecord
    from compressor.service.access.keys import KeyRecord
    from compressor.service.clock import Clock
    from compressor.service.database.engine import Database

_Command = TypeVar("_Command", bound=Callable[..., Any])


def _place_options(function: _Command) -> _Command:
    """Add ``--data-dir`` and ``--database``: where the server's database is."""
    function = click.option(
        "--database",
        "database_url",
        metavar="URL",
        help="The server's database. [COMPRESSOR_DATABASE_URL, or in the data dir]",
    )(function)
    return click.option(
        "--data-dir",
        type=click.Path(path_type=Path, file_okay=False),
        metavar="DIR",
        help="The server's data. [$COMPRESSOR_DATA_DIR, or as compress serve has it]",
    )(function)


@click.group()
def keys() -> None:
    """API keys: who may use a server. Run it where the server runs; what it changes holds at once."""


@keys.command("create")
@click.argument("name")
@click.option("--scopes", default="read,submit", metavar="LIST", help="Of read, submit, agent, admin. [read,submit]")
@click.option("--project", metavar="NAME", help="The project whose jobs it sees. [default]")
@click.option("--all-projects", is_flag=True, help="For all projects: workers, agents, administrators.")
@_place_options
@output_options
def create(
    name: str,
    scopes: str,
    project: str | None,
    all_projects: bool,
    data_dir: Path | None,
    database_url: str | None,
    output: Output,
) -> None:
    """Make a key for NAME (a person, a worker, an agent), and show it: this once, nobody can ask for it again.

    \b
    read    see jobs, reports and files
    submit  submit, cancel and delete jobs, send uploads
    agent   work on jobs (compress worker), measure on a device (compress agent)
    admin   all of that, and read the audit log
    """
    if all_projects and project is not None:
        raise UsageError("A key is for one project or for all; leave out --project or --all-projects.")
    with _database(data_dir, database_url, make=True) as (database, clock):
        from compressor.service.access.keys import BELIEVED_SECONDS, Keys

        known = Keys(database, clock)
        is_first = not known.exist()
        wanted = [scope.strip() for scope in scopes.split(",") if scope.strip()]
        home = None if all_projects else project or "default"
        record, key = known.create(name, project=home, scopes=wanted, by=_me())
        if is_first:
            time.sleep(BELIEVED_SECONDS)  # a running server has noticed by then: once this ends, it is closed
    output.emit({"key": key, **_document(record)}, lambda: key)
    if not output.as_json and not output.quiet:
        where = "all projects" if record.project is None else f"the project {record.project}"
        said = f"{record.name}: {', '.join(record.scopes)}; {where}. Keep the key: it is not shown again."
        click.echo(said, err=True)


@keys.command("list")
@_place_options
@output_options
def list_(data_dir: Path | None, database_url: str | None, output: Output) -> None:
    """List the keys, revoked ones included; the keys themselves are not kept."""
    from compressor.cli.tables import table

    with _database(data_dir, database_url) as (database, clock):
        from compressor.service.access.keys import Keys

        records = Keys(database, clock).records()
    columns = ("id", "name", "project", "scopes", "created", "last used", "revoked")
    cells = [
        [r.id, r.name, r.project or "all", ",".join(r.scopes), _day(r.created_at), _day(r.used_at), _day(r.revoked_at)]
        for r in records
    ]
    output.emit({"keys": [_document(record) for record in records]}, lambda: table("Keys", columns, cells))


@keys.command("revoke")
@click.argument("key")
@_place_options
@output_options
def revoke(key: str, data_dir: Path | None, database_url: str | None, output: Output) -> None:
    """Revoke a key by its name, its id, or itself. Sessions of the page that were opened with it end, too.

    A server whose last key is revoked stays closed; it does not open to all again.
    """
    with _database(data_dir, database_url) as (database, clock):
        from compressor.service.access.keys import Keys

        record = Keys(database, clock).revoke(key, by=_me())
    output.emit(_document(record), lambda: f"Revoked {record.name} ({record.id}).")


@keys.command("audit")
@click.option("--limit", type=click.IntRange(1, 100_000), default=100, help="So many entries, the latest. [100]")
@click.option("--project", metavar="NAME", help="Only what was done in it.")
@_place_options
@output_options
def audit(limit: int, project: str | None, data_dir: Path | None, database_url: str | None, output: Output) -> None:
    """Show who did what, the latest last: submissions, deletions, keys, logins, devices."""
    from compressor.cli.tables import table

    with _database(data_dir, database_url) as (database, clock):
        from compressor.service.access.audit import Audit

        entries = Audit(database, clock).entries(project=project, limit=limit)[::-1]
    columns = ("time", "who", "did", "to", "project")
    cells = [[_second(e.time), e.who, e.action, e.subject or "", e.project or ""] for e in entries]
    output.emit({"entries": [_entry(entry) for entry in entries]}, lambda: table("Audit log", columns, cells))


@contextmanager
def _database(data_dir: Path | None, url: str | None, *, make: bool = False) -> Iterator[tuple[Database, Clock]]:
    try:
        from compressor.service.clock import Clock
        from compressor.service.database.engine import Database
        from compressor.service.database.migrate import migrate
        from compressor.service.settings import settings_of
    except ImportError as error:
        raise MissingDependencyError(
            f"compress keys needs {error.name}; install it with pip install 'compressor[serve]'."
        ) from error
    settings = settings_of(data_dir=data_dir, database_url=url)
    clock = Clock()
    database = Database(settings.database, clock=clock)
    if database.file is not None:
        if not make and not database.file.exists():
            raise UsageError(f"There is no database {database.file}; name the server's --data-dir.")
        database.file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    try:
        migrate(database)
        yield database, clock
    finally:
        database.dispose()


def _me() -> str:
    try:
        return f"cli:{getpass.getuser()}"
    except (KeyError, OSError):  # a user without a name, as in containers
        return "cli"


def _day(time: datetime | None) -> str:
    return f"{time:%Y-%m-%d}" if time is not None else ""


def _second(time: datetime) -> str:
    return f"{time:%Y-%m-%d %H:%M:%S}"


def _iso(time: datetime | None) -> str | None:
    return time.isoformat() if time is not None else None


def _document(record: KeyRecord) -> dict[str, Any]:
    return {
        "id": record.id,
        "name": record.name,
        "project": record.project,
        "scopes": list(record.scopes),
        "created_at": _iso(record.created_at),
        "used_at": _iso(record.used_at),
        "revoked_at": _iso(record.revoked_at),
    }


def _entry(entry: AuditRecord) -> dict[str, Any]:
    return {
        "id": entry.id,
        "time": _iso(entry.time),
        "who": entry.who,
        "action": entry.action,
        "subject": entry.subject,
        "project": entry.project,
        "details": dict(entry.details),
    }
