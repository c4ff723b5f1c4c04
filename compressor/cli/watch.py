"""``compress watch ID``: follow a job of a service to its end."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import click

from compressor.cli.output import Output, output_options
from compressor.cli.remote import emit_report, fetched, follow, server_options


@click.command()
@click.argument("job", metavar="ID")
@server_options
@click.option("--out", metavar="DIR", help="Fetch what the job wrote to this folder when it is done.")
@click.option("--force", is_flag=True, help="Replace files there that have other content.")
@output_options
def watch(job: str, connect: Callable[[], Any], out: str | None, force: bool, output: Output) -> None:
    """Follow job ID to its end, as if it ran here, and show its report.

    The exit code is that of the job. Ctrl-C ends the watching, not the job.
    """
    with output.working(), connect() as client:
        handle = client.job(job)
        follow(handle, output, client.url)
        document = handle.report()
        more = "" if out is None else f"{out}: {len(fetched(handle, out, output, force=force))} files"
    emit_report(output, document, more)
