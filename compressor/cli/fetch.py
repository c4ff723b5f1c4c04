"""``compress fetch ID``: download what a job of a service wrote."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import click

from compressor.cli.output import Output, output_options
from compressor.cli.remote import fetched, server_options


@click.command()
@click.argument("job", metavar="ID")
@click.argument("names", nargs=-1, metavar="[FILE]...")
@server_options
@click.option("--out", metavar="DIR", help="Folder to write. [compressed/ID]")
@click.option("--force", is_flag=True, help="Replace files there that have other content.")
@output_options
def fetch(
    job: str, names: tuple[str, ...], connect: Callable[[], Any], out: str | None, force: bool, output: Output
) -> None:
    """Download the files of job ID, or those named. Run again, it goes on where it was broken off.

    The folder is then as one that compress wrote: report, export and bench take it.
    """
    with output.working(), connect() as client:
        handle = client.job(job)
        place = out or f"compressed/{handle.id}"
        found = fetched(handle, place, output, force=force, names=names)
    paths = [str(path) for path in found]
    output.emit({"job": job, "folder": place, "files": paths}, lambda: "\n".join(paths))
