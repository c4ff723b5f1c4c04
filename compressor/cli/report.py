"""``compress report FOLDER``: read a saved report again."""

from __future__ import annotations

from pathlib import Path

import click

from compressor.cli.output import Output, output_options


@click.command()
@click.argument("folder", type=click.Path(path_type=Path))
@click.option("--html", type=click.Path(path_type=Path), metavar="FILE", help="Write the HTML page again, to FILE.")
@output_options
def report(folder: Path, html: Path | None, output: Output) -> None:
    """Show the report in FOLDER, which an earlier job wrote."""
    with output.working():
        from compressor.report import render_html, summary_text
        from compressor.report.saved import read_report
        from compressor.storage.files import atomic_write_text

        loaded = read_report(folder)
        if html is not None:
            atomic_write_text(html, render_html(loaded))
            output.events().info(f"Wrote {html}.")
    output.emit(loaded.to_json(), lambda: summary_text(loaded))
