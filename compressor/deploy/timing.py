"""Side by side on a device: any models, folders or exported files, timed in turn; and the end of every compression,
where both networks are exported and timed against each other."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

if TYPE_CHECKING:
    from torch import nn

    from compressor.report import PairedTiming
    from exporters.base import Inputs
    from profilers.interleave import Comparison

    Model: TypeAlias = nn.Module | str | Path

DEFAULT_TARGET = "onnxruntime-cpu"
EAGER_TARGET = "torch-cpu"
"""Runs modules as they are."""
#: Files a target loads directly, most specific first. A folder is searched for them before its model is built.
_SUFFIXES = {
    "onnxruntime-cpu": (".onnx",),
    "onnxruntime-cuda": (".onnx",),
    "openvino-cpu": (".xml", ".onnx"),
    "tensorrt": (".engine", ".onnx"),
    "tensorrt-rtx": (".rtx", ".onnx"),
    "simulated": (".onnx",),
}


def suffixes_of(target: str) -> tuple[str, ...]:
    """Endings of the files that a target loads; none where it runs modules. A device elsewhere gets ONNX files."""
    from profilers import registry

    return (".onnx",) if registry.elsewhere(target) is not None else _SUFFIXES.get(target, ())


def bench(
    models: Mapping[str, Model],
    example_inputs: Inputs | None = None,
    *,
    example_kwargs: Mapping[str, Any] | None = None,
    target: str = DEFAULT_TARGET,
    batch: int | None = None,
    threads: int | None = None,
    seconds: float = 10.0,
    progress: Callable[[float], None] | None = None,
    trust_factories: Sequence[str] = (),
) -> Comparison:
    """Time models in turn on one target; the first is the baseline.

    Args:
        models: label to module, exported file, folder that compress wrote, or model name (random weights).
        example_inputs: for modules, a tensor, a tuple of arguments or an ``exporters.example.Example``; files, folders
            and names know their own.
        example_kwargs: keyword arguments of the forward.
        batch: batch size; ``None`` leaves the example's.
        threads: CPU threads; ``None`` takes every core this process may use.
        seconds: time for measuring, loading not included.
        trust_factories: factories, modules and packages that folders may name, see ``compressor.load``.

    Raises:
        UsageError: nothing to time, or a name that means nothing.
        profilers.errors.ProfilerError: the target is unknown or not available, or refuses a model.
    """
    from profilers import registry
    from profilers.side_by_side import time_in_turn

    if example_kwargs:
        from compressor.nn.tensors import example_of

        example_inputs = example_of(() if example_inputs is None else example_inputs, example_kwargs)
    runtime = registry.get(target)
    found = {label: resolve(model, example_inputs, target, trust_factories) for label, model in models.items()}
    return time_in_turn(runtime, found, threads=threads, batch=batch, seconds=seconds, progress=progress)


def compare(
    original: Model,
    compressed: Model,
    example_inputs: Inputs | None = None,
    *,
    target: str = DEFAULT_TARGET,
    **how: Any,
) -> PairedTiming:
    """Two models, for the report; ``how`` as for :func:`bench`."""
    from compressor.report import PairedTiming

    return PairedTiming.from_comparison(
        bench({"original": original, "compressed": compressed}, example_inputs, target=target, **how)
    )


def resolve(
    model: Model, example_inputs: Inputs | None, target: str, trust_factories: Sequence[str] = ()
) -> tuple[nn.Module | Path, Inputs | None]:
    """What a runtime can load for ``model``, with inputs: a file as it is, a folder's file for this target or its
    model, a name as a model with random weights (speed does not depend on their values)."""
    if not isinstance(model, (str, Path)):
        return model, example_inputs
    path = Path(model)
    if path.is_file():
        return path, example_inputs
    if path.is_dir():
        from compressor.models import artifact

        inputs = example_inputs if example_inputs is not None else artifact.example_inputs(path)
        for suffix in suffixes_of(target):
            files = sorted(path.glob(f"*{suffix}"))
            if len(files) == 1:
                return files[0], inputs
        return artifact.load(path, trust_factories=trust_factories), inputs
    from compressor.models import load_model

    loaded = load_model(str(model), weights="none")
    return loaded.model, example_inputs if example_inputs is not None else loaded.example_inputs


def table(comparison: Comparison) -> str:
    """The comparison in the words of trtexec: latency percentiles and throughput, on a GPU enqueue and compute time."""
    timings = comparison.timings
    first = next(iter(timings.values()))
    on_gpu = any(timing.compute_ms is not None for timing in timings.values())
    head = ["times in ms", "median", "p5", "p95", "p99", "mean", *(["enqueue", "compute"] if on_gpu else [])]
    rows = [[*head, "samples/s", "spread", "outliers", "runs", "time ratio"]]
    for label, timing in timings.items():
        ratio = comparison.ratios.get(label)
        times = [timing.median_ms, timing.p5_ms, timing.p95_ms, timing.p99_ms, timing.mean_ms]
        row = [label, *(f"{value:.3f}" for value in times)]
        if on_gpu:
            row += ["" if value is None else f"{value:.3f}" for value in (timing.enqueue_ms, timing.compute_ms)]
        row += [f"{timing.throughput_per_s:.1f}", f"{timing.spread:.1%}", str(timing.outliers), str(timing.repeats)]
        row.append(
            "baseline" if ratio is None else f"{ratio.value:.3f} [{ratio.low:.3f}, {ratio.high:.3f}] {ratio.verdict}"
        )
        rows.append(row)
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    threads = f", {first.threads} threads" if first.threads else ""
    lines = [
        f"{first.runtime} {first.version} on {first.device}, {first.precision}, batch {first.batch}{threads}",
        *(
            "  ".join(
                cell.ljust(width) if column in (0, len(row) - 1) else cell.rjust(width)
                for column, (cell, width) in enumerate(zip(row, widths, strict=True))
            ).rstrip()
            for row in rows
        ),
    ]
    if comparison.noise:
        lines.append(f"Warning: {comparison.noise}")
    return "\n".join(lines)
