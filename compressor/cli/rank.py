"""``compress rank FOLDER``: what a search ranked, and how well the ranking agrees with known accuracies."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from compressor.cli.output import Output, output_options
from compressor.errors import UsageError
from compressor.storage.reading import read_json


@click.command()
@click.argument("folder", type=click.Path(path_type=Path))
@click.option(
    "--known",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help='Accuracies that are known, as JSON {"[4, 3, 3]": 90.52, ...}: Kendall\'s tau with the ranking is shown.',
)
@click.option("--front", "front_of", metavar="COST", help="Only what no other beats in score and this cost.")
@output_options
def rank(folder: Path, known: Path | None, front_of: str | None, output: Output) -> None:
    """Show the ranking of configurations in FOLDER, which a job with --search pooling wrote."""
    with output.working():
        from compressor.report.ranking import agreement, front
        from compressor.report.saved import read_report

        rows = read_report(folder).ranking
        if not rows:
            raise UsageError(f"{folder} has no ranking; searches that rank networks write one (--search pooling).")
        tau = None if known is None else agreement(rows, _known(known))
        if front_of is not None:
            if front_of not in rows[0].costs:
                raise UsageError(f"--front takes one of {', '.join(rows[0].costs)}, not {front_of!r}.")
            rows = front(rows, front_of)
            if not rows:
                raise UsageError(f"No configuration in {folder} has a score, so there is no front; leave --front out.")
    document: dict[str, Any] = {"ranking": [vars(row) for row in rows]}
    if tau is not None:
        document["kendall_tau"] = tau
    output.emit(document, lambda: _text(rows, tau))


def _known(file: Path) -> dict[str, float]:
    found = read_json(file, 'give a JSON object such as {"[4, 3, 3]": 90.52}')
    if isinstance(found, dict):
        found = found.get("accuracies", found)
    if not isinstance(found, dict) or not all(
        isinstance(value, (int, float)) and not isinstance(value, bool) for value in found.values()
    ):
        raise UsageError(f'{file} has no accuracies by configuration, such as {{"[4, 3, 3]": 90.52}}.')
    return {str(name): float(value) for name, value in found.items()}


def _text(rows: list[Any], tau: float | None) -> str:
    costs = list(rows[0].costs)
    names = ["", "configuration", "score", "average", "weights", *costs]
    lines = [names]
    for place, row in enumerate(rows, 1):
        score = "-" if row.score is None else f"{row.score:.4f}"
        values = [f"{row.costs[name]:.4g}" for name in costs]
        mark = " *" if row.chosen else ""
        lines.append([str(place), row.name + mark, score, f"{row.average:.4f}", str(row.weight_set + 1), *values])
    wide = [max(len(line[i]) for line in lines) for i in range(len(names))]
    text = "\n".join("  ".join(cell.ljust(w) for cell, w in zip(line, wide, strict=True)).rstrip() for line in lines)
    said = "" if tau is None else f"\nKendall's tau with the accuracies given: {tau:.3f}"
    return f"{text}\n* taken{said}"
