"""``compress models [PATTERN]``: the names that ``--model`` takes."""

from __future__ import annotations

import click

from compressor.cli.output import Output, output_options
from compressor.errors import UsageError


@click.command()
@click.argument("pattern", required=False)
@output_options
def models(pattern: str | None, output: Output) -> None:
    """List model names: shipped and torchvision's, or timm's with PATTERN 'timm:*'.

    PATTERN is a shell pattern such as 'resnet*', or a part of a name.
    """
    with output.working():
        from compressor.models import list_models

        names = list_models(pattern)
    if not names:
        raise UsageError(f"No model matches {pattern!r}; compress models lists all, and 'timm:{pattern}' asks timm.")
    output.emit({"models": names}, lambda: "\n".join(names))
