"""``compress profile``: measure a model's operators on a target into the latency table."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from compressor.cli.lut import lut_option
from compressor.cli.options import Of, model_or_folder, structure_options, trust_option
from compressor.cli.output import JobInterrupted, Output, output_options
from compressor.options import Number, Whole
from compressor.options.shared import SECONDS, THREADS


@click.command()
@model_or_folder
@trust_option
@structure_options
@click.option("--target", required=True, metavar="T", help="Where to measure; 'compress targets' lists them.")
@lut_option
@click.option("--threads", type=Of(THREADS), metavar="N", help="CPU threads. [all cores]")
@click.option("--max-points", type=Of(Whole(4, 10_000)), default=24, metavar="N", help="Most points per operator. [24]")
@click.option(
    "--tolerance",
    type=Of(Number(above=0)),
    default=0.03,
    metavar="X",
    help="Relative error of interpolation at which an operator needs no more points. [0.03]",
)
@click.option("--seconds", type=Of(SECONDS), metavar="S", help="Stop after this long. [no limit]")
@output_options
def profile(
    model: str,
    folder: str | None,
    trust_factories: tuple[str, ...],
    num_classes: int | None,
    input_shape: tuple[int, ...] | None,
    target: str,
    lut_file: Path | None,
    threads: int | None,
    max_points: int,
    tolerance: float,
    seconds: float | None,
    output: Output,
) -> None:
    """Measure what the latency table lacks for a model: every distinct operator over its channels.

    Points are shared with every model that has the same operators. Stop it whenever you like; run it again to go on.
    """
    events = output.events()
    with output.working():
        from compressor.cli.structure import load_structure
        from compressor.graph import capture
        from compressor.latency.profile import open_timer
        from compressor.latency.profile import profile as measure
        from compressor.latency.target import TargetSettings
        from lut import LatencyTable

        runtime = TargetSettings(target).runtime()
        loaded = load_structure(
            model, num_classes=num_classes, input_shape=input_shape, trust_factories=trust_factories, folder=folder
        )
        graph = capture(loaded.model, loaded.example.args, example_kwargs=dict(loaded.example.kwargs))
        shown = 0

        def progress(done: int, total: int, label: str) -> None:
            nonlocal shown
            if done > shown:
                shown = done
                events.info(f"{done} of {total} operators, {label}")

        with LatencyTable(lut_file) as table, open_timer(runtime, table, threads=threads) as timer:
            if table.set_aside is not None:
                events.warn(f"The table was damaged; it was set aside as {table.set_aside}, and a new one begun.")
            try:
                found = measure(
                    graph,
                    table,
                    timer,
                    tolerance=tolerance,
                    max_points=max_points,
                    seconds=seconds,
                    progress=progress,
                )
            except KeyboardInterrupt as error:
                raise JobInterrupted(f"Interrupted; run it again to go on (kept in {table.path}).") from error
            path = str(table.path)
    if found.noise:
        events.warn(found.noise)
    document = {"path": path, **found.to_json()}
    output.emit(document, lambda: _text(document))


def _text(document: dict[str, Any]) -> str:
    from compressor.cli.tables import table

    rows = [(s["label"], s["points"], s["refused"], s["error"], s["stopped"]) for s in document["signatures"]]
    lines = [
        table(document["target"]["label"], ("operator", "points", "refused", "error", "stopped by"), rows),
        f"{document['measured']:,} points measured in {document['seconds']:.1f} s ({document['known']:,} were in the "
        f"table {document['path']}), typical spread {document['spread']:.1%}.",
    ]
    if not document["finished"]:
        lines.append("Time ran out before all was measured; run it again to go on.")
    lines += [f"Not measured in the time given: {label}" for label in document["unmeasured"]]
    lines += [f"Refused: {label}: {error}" for label, error in document["refused"].items()]
    return "\n".join(lines)
