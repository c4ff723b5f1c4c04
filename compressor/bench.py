"""Side by side on a device: any models, folders or exported files, timed in turn; and the end of every compression,
where both networks are exported and timed against each other."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from compressor.errors import MissingDependencyError, UsageError

if TYPE_CHECKING:
    from torch import nn

    from compressor.data import Data
    from compressor.report import FileWritten, Latency, Quantisation, Size
    from exporters.base import ExportInfo, Inputs
    from profilers.interleave import Comparison

    Model: TypeAlias = nn.Module | str | Path

DEFAULT_TARGET = "onnxruntime-cpu"
#: Files a target loads directly, most specific first. A folder is searched for them before its model is built.
_SUFFIXES = {
    "onnxruntime-cpu": (".onnx",),
    "onnxruntime-cuda": (".onnx",),
    "openvino-cpu": (".xml", ".onnx"),
    "tensorrt": (".engine", ".onnx"),
    "tensorrt-rtx": (".rtx", ".onnx"),
    "simulated": (".onnx",),
}


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
    from profilers.interleave import interleave

    if example_kwargs:
        from compressor.tensors import example_of

        example_inputs = example_of(() if example_inputs is None else example_inputs, example_kwargs)
    runtime = registry.get(target)
    with ExitStack() as stack:
        runners = {}
        for label, model in models.items():
            found, inputs = resolve(model, example_inputs, target, trust_factories)
            runners[label] = runtime.load(found, inputs, threads=threads, batch=batch)
            stack.callback(runners[label].close)
        return interleave(runners, seconds=seconds, progress=progress)


def compare(
    original: Model,
    compressed: Model,
    example_inputs: Inputs | None = None,
    *,
    target: str = DEFAULT_TARGET,
    **how: Any,
) -> Latency:
    """Two models, for the report; ``how`` as for :func:`bench`."""
    from compressor.report import Latency

    return Latency.from_comparison(
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
        from compressor import artifact

        inputs = example_inputs if example_inputs is not None else artifact.example_inputs(path)
        for suffix in _SUFFIXES.get(target, ()):
            files = sorted(path.glob(f"*{suffix}"))
            if len(files) == 1:
                return files[0], inputs
        return artifact.load(path, trust_factories=trust_factories), inputs
    from compressor.models import load_model

    loaded = load_model(str(model), weights="none")
    return loaded.model, example_inputs if example_inputs is not None else loaded.example_inputs


def bench_command(
    models: Sequence[str],
    *,
    target: str = DEFAULT_TARGET,
    batch: int | None = None,
    threads: int | None = None,
    seconds: float = 10.0,
) -> tuple[dict[str, Any], str]:
    """``compress bench A B ...``: the JSON document and the table. Raises as :func:`bench` does."""
    if len(set(models)) != len(models) or not models:
        raise UsageError(f"Pass each model once, at least one; found {', '.join(models) or 'none'}.")
    found = bench({str(model): model for model in models}, target=target, batch=batch, threads=threads, seconds=seconds)
    return {"target": target, **found.to_json()}, table(found)


def export_command(
    model: str,
    formats: Sequence[str],
    out: str | Path,
    *,
    stem: str = "model",
    **options: Any,
) -> list[ExportInfo]:
    """``compress export MODEL --format a,b``: a folder's or a named model written in every format.

    Raises:
        UsageError: a folder saved without example inputs.
        exporters.errors.ExporterError: a format is unknown or not installed, refuses the model, or fails its check.
    """
    if Path(model).is_dir():
        from compressor import artifact

        module, inputs = artifact.load(model), artifact.example_inputs(model)
        if inputs is None:
            raise UsageError(f"{model} was saved without example inputs; export it from Python, which takes them.")
        return export_all(module, inputs, out, formats, stem=stem, **options)
    from compressor.models import load_model

    loaded = load_model(model)
    return export_all(loaded.model, loaded.example_inputs, out, formats, stem=stem, **options)


def require_formats(formats: Sequence[str]) -> None:
    """Raise now, not after hours of search, for a format that is unknown or not installed."""
    from exporters import registry

    for name in formats:
        found = registry.get(name).is_available()
        if not found:
            raise MissingDependencyError(f"The format {name} cannot be written here: {found.reason}")


def require_target(target: str) -> None:
    """Raise now for a target that is unknown or not available."""
    from profilers import registry
    from profilers.base import require

    require(registry.get(target))


def export_all(
    model: nn.Module,
    example_inputs: Inputs,
    folder: str | Path,
    formats: Sequence[str],
    *,
    stem: str = "model",
    **options: Any,
) -> list[ExportInfo]:
    """Write ``model`` into ``folder`` in every format, ONNX first because others start from it.

    Args:
        example_inputs: a tensor, a tuple of arguments, or an ``exporters.example.Example`` with keyword arguments.
        options: go to every exporter that knows them.

    Raises:
        UsageError: an open axis or an operator set was asked for, and a format has none.
    """
    import inspect

    from exporters import registry

    require_formats(formats)
    written: list[ExportInfo] = []
    onnx_path: Path | None = None
    for name in sorted(formats, key=lambda name: name != "onnx"):
        exporter = registry.get(name)
        known = inspect.signature(exporter.export).parameters
        for option, words in (("opset_version", "ONNX opset"), ("dynamic_axes", "open axes beside the batch")):
            if options.get(option) not in (None, "auto") and option not in known:
                raise UsageError(f"The format {name} has no {words}; leave that out, or choose another format.")
        given = {key: value for key, value in options.items() if key in known}
        if onnx_path is not None and "onnx_path" in known:
            given["onnx_path"] = onnx_path
        info = exporter.export(model, example_inputs, Path(folder) / f"{stem}{exporter.suffix}", **given)
        if name == "onnx":
            onnx_path = info.path
        written.append(info)
    return written


@dataclass
class Delivery:
    """What :func:`deliver` made: entries for the report, ready to be used."""

    files: list[FileWritten] = field(default_factory=list)
    sizes: list[Size] = field(default_factory=list)
    latencies: list[Latency] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    stage_seconds: dict[str, float] = field(default_factory=dict)
    exports: list[ExportInfo] = field(default_factory=list)
    quantisation: Quantisation | None = None


def deliver(
    original: nn.Module,
    compressed: nn.Module,
    example_inputs: Inputs,
    folder: str | Path,
    *,
    formats: Sequence[str] = ("onnx",),
    targets: Sequence[str] = (DEFAULT_TARGET,),
    batch: int | None = None,
    threads: int | None = None,
    seconds: float = 10.0,
    data: Data | None = None,
    progress: Callable[[float], None] | None = None,
    dynamic_axes: str | None = None,
) -> Delivery:
    """Export the compressed network into ``folder`` and time it against the original on every target.

    ``data`` is what int8 is calibrated and evaluated with, ``dynamic_axes`` as for the exporters.

    A format or target that refuses one of the networks becomes a warning: by now hours may have gone into the
    search, and everything else is still wanted. A file that computes something else than the network raises.

    Raises:
        exporters.errors.ExportCheckError: an exported file differs from PyTorch.
    """
    from compressor import int8
    from compressor.config import INT8_FORMAT
    from compressor.report import FileWritten, Latency, Size
    from exporters.errors import ExportCheckError, ExporterError
    from profilers.errors import ProfilerError

    result = Delivery()
    started = time.perf_counter()
    for name in sorted(formats, key=lambda name: name != "onnx"):
        options: dict[str, Any] = {"dynamic_axes": dynamic_axes}
        if result.exports and result.exports[0].format == "onnx":
            options["onnx_path"] = result.exports[0].path
        if name == INT8_FORMAT:
            options["calibration"] = int8.calibration_inputs(data)
        try:
            info = export_all(compressed, example_inputs, folder, [name], **options)[0]
        except ExportCheckError:
            raise
        except ExporterError as error:
            result.warnings.append(f"Not exported to {name}. {error}")
            continue
        result.exports.append(info)
        result.files.append(FileWritten.from_export(info))
    with tempfile.TemporaryDirectory() as temporary:
        pair: dict[str, Model] = {"original": original, "compressed": compressed}
        onnx = next((info for info in result.exports if info.format == "onnx"), None)
        if onnx is not None:
            try:
                twin = export_all(
                    original, example_inputs, temporary, ["onnx"], check=False, dynamic_axes=dynamic_axes
                )[0]
            except ExporterError as error:
                result.warnings.append(
                    f"The original could not be exported to ONNX, so it was not timed there. {error}"
                )
            else:
                result.sizes.append(Size("ONNX file", twin.bytes, onnx.bytes))
                pair = {"original": twin.path, "compressed": onnx.path}
        quantised = next((info for info in result.exports if info.format == INT8_FORMAT), None)
        if quantised is not None:
            single = onnx or export_all(compressed, example_inputs, temporary, ["onnx"], stem="single", check=False)[0]
            result.quantisation = int8.describe(
                single.path, quantised, data, threads=threads, seconds=seconds if targets else 0.0
            )
        result.stage_seconds["export"] = time.perf_counter() - started
        started = time.perf_counter()
        for target in targets:
            on_files = ".onnx" in _SUFFIXES.get(target, ())
            models = pair if on_files else {"original": original, "compressed": compressed}
            how: dict[str, Any] = {"batch": batch, "threads": threads, "seconds": seconds / len(targets)}
            try:
                found = bench(models, example_inputs, target=target, progress=progress, **how)
            except (ProfilerError, ExporterError) as error:
                result.warnings.append(f"Latency was not measured on {target}. {error}")
                continue
            result.latencies.append(Latency.from_comparison(found))
        result.stage_seconds["benchmark"] = time.perf_counter() - started
    return result


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
