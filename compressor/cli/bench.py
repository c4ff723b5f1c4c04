"""``compress bench --model A --model B``: time networks in turn on one target."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

import click

from compressor.cli.options import structure_options
from compressor.cli.output import Output, output_options
from compressor.cli.structure import load_structure
from compressor.cli.tables import table
from compressor.errors import UsageError

if TYPE_CHECKING:
    from profilers.base import Runner, Runtime
    from profilers.interleave import Comparison


@click.command()
@click.option(
    "--model",
    "models",
    multiple=True,
    required=True,
    metavar="M",
    help="A model's name, a saved folder or an exported file; repeat it to compare, the first is the baseline.",
)
@structure_options
@click.option("--target", default="onnxruntime-cpu", metavar="T", help="Where to time. [onnxruntime-cpu]")
@click.option("--batch", type=click.IntRange(min=1), default=1, metavar="N", help="Batch size. [1]")
@click.option("--threads", type=click.IntRange(min=1), metavar="N", help="CPU threads. [all cores]")
@click.option(
    "--seconds", type=click.FloatRange(min=0, min_open=True), default=10.0, metavar="S", help="Time to take. [10]"
)
@output_options
def bench(
    models: tuple[str, ...],
    num_classes: int | None,
    input_shape: tuple[int, ...] | None,
    target: str,
    batch: int,
    threads: int | None,
    seconds: float,
    output: Output,
) -> None:
    """Time one or more models, in turn so that drift of the machine hits all alike. Weights are random."""
    if len(set(models)) < len(models):
        raise UsageError("The same model was given twice; each must differ from the others.")
    with output.working(), ExitStack() as stack:
        from profilers import registry
        from profilers.interleave import interleave

        runtime = registry.get(target)
        console = output.console()
        runners: dict[str, Runner] = {}
        for name in models:
            with console.stage(f"Load {name}"):
                runners[name] = _load(runtime, name, num_classes, input_shape, batch, threads)
            stack.callback(runners[name].close)
        with console.stage("Measure"):
            found = interleave(runners, seconds=seconds)
    output.emit({"target": target, **found.to_json()}, lambda: _render(found))


def _load(
    runtime: Runtime,
    name: str,
    num_classes: int | None,
    input_shape: tuple[int, ...] | None,
    batch: int,
    threads: int | None,
) -> Runner:
    if Path(name).is_file():
        return runtime.load(Path(name), batch=batch, threads=threads)
    loaded = load_structure(name, num_classes=num_classes, input_shape=input_shape)
    return runtime.load(loaded.model, loaded.example_inputs, batch=batch, threads=threads)


def _render(found: Comparison) -> str:
    first = next(iter(found.timings.values()))
    conditions = f"{first.runtime} {first.version} on {first.device}, {first.precision}, batch {first.batch}"
    threads = f", {first.threads} thread{'s' if first.threads > 1 else ''}" if first.threads else ""
    rows = []
    for label, timing in found.timings.items():
        ratio = found.ratios.get(label)
        verdict = f"{ratio.value:.3f} ({ratio.verdict})" if ratio is not None else "baseline"
        rows.append((label, timing.median_ms, timing.p95_ms, timing.throughput_per_s, timing.repeats, verdict))
    columns = ("model", "median ms", "95 % ms", "samples/s", "runs", "latency over baseline")
    return "\n".join(
        [table(conditions + threads, columns, rows), *([f"Warning: {found.noise}"] if found.noise else [])]
    )
