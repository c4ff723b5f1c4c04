"""``compress retry ID``: queue a job of a service again."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import click

from compressor.cli.output import Output, output_options
from compressor.cli.remote import server_options


@click.command()
@click.argument("job", metavar="ID")
@server_options
@output_options
def retry(job: str, connect: Callable[[], Any], output: Output) -> None:
    """Queue job ID again, which failed or was cancelled. It goes on from its last stage."""
    with output.working(), connect() as client:
        document = client.job(job).retry()
    output.emit(document, lambda: f"{job} is {document.get('state')}.")
