"""``compress report FOLDER``: read a saved report again."""

from __future__ import annotations

from pathlib import Path

import click

from compressor.cli.output import Output, output_options
from compressor.errors import UsageError
from compressor.storage.reading import read_json


@click.command()
@click.argument("folder", type=click.Path(path_type=Path))
@click.option("--html", type=click.Path(path_type=Path), metavar="FILE", help="Write the HTML page again, to FILE.")
@output_options
def report(folder: Path, html: Path | None, output: Output) -> None:
    """Show the report in FOLDER, which an earlier job wrote."""
    file = folder / "report.json" if folder.is_dir() else folder
    content = read_json(file, "give a folder that compress wrote")
    with output.working():
        from compressor.report import Report, render_html, summary_text
        from compressor.storage.files import atomic_write_text

        try:
            loaded = Report.from_json(content)
        except UsageError as error:
            raise UsageError(f"{file}: {error}") from error
        if html is not None:
            atomic_write_text(html, render_html(loaded))
            output.events().info(f"Wrote {html}.")
    output.emit(loaded.to_json(), lambda: summary_text(loaded))
