"""``compress cancel ID``: end a job of a service."""

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
def cancel(job: str, connect: Callable[[], Any], output: Output) -> None:
    """End job ID: one that is queued at once, one that runs within seconds.

    What it has stored stays; compress retry goes on from there.
    """
    with output.working(), connect() as client:
        document = client.job(job).cancel()
    output.emit(document, lambda: f"{job} is {_how(document)}.")


def _how(document: dict[str, Any]) -> str:
    state = document.get("state")
    return "being stopped" if state == "running" else f"{state}"
