"""``compress targets``: where networks can be timed, and why some of it is not possible here."""

from __future__ import annotations

import click

from compressor.cli.output import Output, output_options
from compressor.cli.tables import table


@click.command()
@output_options
def targets(output: Output) -> None:
    """List the targets networks can be timed on: whether each can be used here, and if not, what is missing."""
    with output.working():
        from profilers.registry import availability

        found = [
            {"target": name, "available": available.ok, "reason": available.reason}
            for name, available in availability().items()
        ]
    rows = [(entry["target"], entry["available"], entry["reason"] or "-") for entry in found]
    output.emit({"targets": found}, lambda: table("Targets", ("target", "available", "reason"), rows))
