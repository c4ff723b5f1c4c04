"""``compress pick FOLDER``: another network from what a sweep left, without training."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from compressor.budget import parse_budgets
from compressor.cli.compress import budget_options, named_budgets
from compressor.cli.options import Of, trust_option
from compressor.cli.output import Output, output_options
from compressor.errors import UsageError
from compressor.jobs.asked import known_formats
from compressor.jobs.config import default_out
from compressor.options import Names
from exporters.registry import INT8_FORMAT


@click.command()
@click.argument("folder", type=click.Path(path_type=Path))
@budget_options
@click.option(
    "--export", type=Of(Names()), default=("onnx",), metavar="F,...", help="Formats to write, or none. [onnx]"
)
@trust_option
@click.option("--out", metavar="DIR", help="Folder to write. [compressed/FOLDER-flops-40pct]")
@click.option("--force", is_flag=True, help="Overwrite a folder that holds another result.")
@output_options
def pick(folder: Path, export: tuple[str, ...], out: str | None, force: bool, output: Output, **options: Any) -> None:
    """Take the best network within the budgets from FOLDER: a sweep, or a job with --search supernet.

    Nothing is trained, and no data is needed. The network is verified, exported and saved like any other result.
    """
    values = dict(options)
    budgets = parse_budgets(named_budgets(values))
    known_formats(export)
    if INT8_FORMAT in export:
        raise UsageError(
            f"{INT8_FORMAT} takes its ranges from data; export it later: compress export DIR --to {INT8_FORMAT}."
        )
    with output.working():
        from compressor.jobs.pick import PickConfig
        from compressor.jobs.pick import pick as picked
        from compressor.report import summary_text

        config = PickConfig(
            str(folder), budgets, out or default_out(str(folder), budgets), export, force=force, **values
        )
        report = picked(config, events=output.events())
    output.emit(report.to_json(), lambda: summary_text(report))
