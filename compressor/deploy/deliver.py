"""The end of a compression: files of both networks, their sizes and times."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from compressor.deploy.exports import export_all

if TYPE_CHECKING:
    from torch import nn

    from compressor.data import Data
    from compressor.report import FileWritten, PairedTiming, Quantisation, Size
    from exporters.base import ExportInfo, Inputs

    Model: TypeAlias = nn.Module | str | Path
from compressor.deploy.timing import DEFAULT_TARGET, bench, suffixes_of


@dataclass
class Delivery:
    """What :func:`deliver` made: entries for the report, ready to be used."""

    files: list[FileWritten] = field(default_factory=list)
    sizes: list[Size] = field(default_factory=list)
    latencies: list[PairedTiming] = field(default_factory=list)
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
    instead: str | None = None,
) -> Delivery:
    """Export the compressed network into ``folder`` and time it against the original on every target.

    ``data`` is what int8 is calibrated and evaluated with, ``dynamic_axes`` as for the exporters. A target that runs
    exported files is replaced by ``instead`` where the networks cannot be exported.

    A format or target that refuses one of the networks becomes a warning: by now hours may have gone into the
    search, and everything else is still wanted. A file that computes something else than the network raises.

    Raises:
        exporters.errors.ExportCheckError: an exported file differs from PyTorch.
    """
    from compressor.deploy import int8
    from compressor.report import FileWritten, PairedTiming, Size
    from exporters.errors import ExportCheckError, ExporterError
    from exporters.registry import INT8_FORMAT
    from profilers.errors import ProfilerError

    result = Delivery()
    started = time.perf_counter()
    refused: ExporterError | None = None
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
            refused = refused or (error if name == "onnx" else None)
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
            on_files = ".onnx" in suffixes_of(target)
            models = pair if on_files else {"original": original, "compressed": compressed}
            how: dict[str, Any] = {"batch": batch, "threads": threads, "seconds": seconds / len(targets)}
            try:
                if on_files and refused is not None:  # to find out once more may take minutes
                    raise refused
                found = bench(models, example_inputs, target=target, progress=progress, **how)
            except (ProfilerError, ExporterError) as error:
                result.warnings.append(f"Latency was not measured on {target}. {error}")
                if instead is None or not isinstance(error, ExporterError):
                    continue
                try:
                    found = bench(models, example_inputs, target=instead, progress=progress, **how)
                except (ProfilerError, ExporterError) as another:
                    result.warnings.append(f"Latency was not measured on {instead} either. {another}")
                    continue
            result.latencies.append(PairedTiming.from_comparison(found))
        result.stage_seconds["benchmark"] = time.perf_counter() - started
    return result
