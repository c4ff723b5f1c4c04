"""What commands of a service share: which one, with which key, and how a job is followed."""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from compressor.cli import streams
from compressor.cli.output import JobInterrupted, Output
from compressor.errors import UsageError

if TYPE_CHECKING:
    from compressor.service.client import Client, Job

_MOST_KEY_BYTES = 4096


def server_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """Add ``--server`` and ``--key-file``; the command gets a function ``connect`` that gives a ``Client``."""

    @click.option(
        "--server",
        metavar="URL",
        envvar="COMPRESSOR_SERVER",
        help="The service. [COMPRESSOR_SERVER, else http://127.0.0.1:8080]",
    )
    @click.option(
        "--key-file",
        type=click.Path(path_type=Path),
        metavar="FILE",
        help="A file with the API key. [COMPRESSOR_KEY has the key itself]",
    )
    @functools.wraps(function)
    def wrapped(*args: Any, server: str | None, key_file: Path | None, **options: Any) -> Any:
        return function(*args, connect=lambda: _client(server, key_file), **options)

    return wrapped


def _client(server: str | None, key_file: Path | None) -> Client:
    from compressor.service.client import Client

    with warnings.catch_warnings(record=True) as caught:  # commands silence those of libraries
        warnings.simplefilter("always")
        client = Client(server or None, None if key_file is None else _key_in(key_file))
    for each in caught:
        streams.say(f"Warning: {each.message}")
    return client


def _key_in(file: Path) -> str:
    from compressor.storage.reading import read_bytes

    text = read_bytes(file, "name the file that compress keys wrote", limit=_MOST_KEY_BYTES)
    found = text.decode(errors="replace").strip()
    if not found:
        raise UsageError(f"{file} has no key in it.")
    return found


def follow(job: Job, output: Output, server: str) -> dict[str, Any]:
    """Show what happens to a job until it ends, as one on this machine would; returns its document.

    Raises:
        JobInterrupted: Ctrl-C; the job goes on. Others are those of ``Job.wait``.
    """
    events = output.events()

    def tell(event: Any) -> None:
        events.emit(event)

    try:
        return job.wait(tell, broken=events.warn)
    except KeyboardInterrupt as error:
        raise JobInterrupted(
            f"No longer watching; job {job.id} goes on. Watch it again: compress watch {job.id} --server {server}; "
            f"end it: compress cancel {job.id} --server {server}."
        ) from error


def fetched(job: Job, out: str, output: Output, *, force: bool = False, names: tuple[str, ...] = ()) -> list[Path]:
    """Download a job's files. Raises ``JobInterrupted`` for Ctrl-C, and as ``Job.fetch``."""
    try:
        return job.fetch(out, names or None, force=force, told=output.events().info)
    except KeyboardInterrupt as error:
        raise JobInterrupted(
            f"Interrupted. Run compress fetch {job.id} --out {out} to go on from where it stopped."
        ) from error


def emit_report(output: Output, document: dict[str, Any], more: str = "") -> None:
    """Write the report of a job, or the front of a sweep, to stdout.

    Args:
        more: a line to end the text with.
    """

    def text() -> str:
        if document.get("kind") == "sweep":
            from compressor.cli.fronts import front_text

            said = front_text(document)
        else:
            from compressor.report import Report, summary_text

            said = summary_text(Report.from_json(document))
        return f"{said}\n\n{more}" if more else said

    output.emit(document, text)
