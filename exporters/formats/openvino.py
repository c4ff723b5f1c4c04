"""OpenVINO's intermediate representation: an ``.xml`` graph with its weights in a ``.bin`` beside it."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from torch import Tensor, nn

from exporters.axes import Asked
from exporters.base import (
    CHECK_BATCHES,
    TOLERANCES,
    Availability,
    ExportCheck,
    ExportInfo,
    Inputs,
    package_availability,
    package_version,
    require,
)
from exporters.check import Run, check_all, check_notes
from exporters.errors import ExporterUsageError, UnsupportedExportError
from exporters.example import as_example
from exporters.files import staged, total_bytes
from exporters.formats.onnx_source import OnnxSource, onnx_source
from exporters.quiet import first_line, quiet


class OpenVinoExporter:
    """Reads the ONNX file into OpenVINO and writes it as IR; ``precision="fp16"`` stores the weights in half size."""

    name = "openvino"
    suffix = ".xml"

    def is_available(self) -> Availability:
        """The extra ``openvino`` brings the package."""
        return package_availability("openvino", package="openvino", extra="openvino")

    def export(
        self,
        model: nn.Module,
        example_inputs: Inputs,
        path: Path,
        *,
        precision: str = "fp32",
        onnx_path: Path | None = None,
        dynamic_batch: bool = True,
        dynamic_axes: Asked = None,
        opset_version: int | None = None,
        batches: Sequence[int] = CHECK_BATCHES,
        tolerance: float | None = None,
        check: bool = True,
        seed: int = 0,
    ) -> ExportInfo:
        """Write ``model`` to ``path`` (``.xml``) and the weights beside it (``.bin``).

        Args:
            precision: "fp32" or "fp16", of the stored weights; the device decides what it computes in.
            onnx_path: an ONNX file of the same model; without it one is made.
            dynamic_axes, batches, tolerance, check, seed: as for :meth:`exporters.formats.onnx.OnnxExporter.export`.
        """
        require(self.is_available(), "The OpenVINO exporter")
        if precision not in ("fp32", "fp16"):
            raise ExporterUsageError(f"The OpenVINO format stores fp32 or fp16, not {precision!r}.")
        started = time.perf_counter()
        path = Path(path)
        example = as_example(example_inputs)
        limit = TOLERANCES[precision] if tolerance is None else tolerance
        checks: tuple[ExportCheck, ...] = ()
        with (
            onnx_source(
                model,
                example,
                onnx_path,
                dynamic_batch=dynamic_batch,
                dynamic_axes=dynamic_axes,
                opset_version=opset_version,
            ) as source,
            staged(path) as staging,
            quiet(),
        ):
            operations = _convert(source, staging, compress=precision == "fp16")
            if check:
                checks = check_all(
                    model,
                    example,
                    openvino_run(staging),
                    batches=list(batches) if source.dynamic_batch else [None],
                    tolerance=limit,
                    seed=seed,
                    what="The OpenVINO file",
                    opened=source.opened,
                )
        files = (path, path.with_suffix(".bin"))
        return ExportInfo(
            format=self.name,
            path=path,
            files=files,
            bytes=total_bytes(files),
            precision=precision,
            dynamic_batch=source.dynamic_batch,
            checks=checks,
            tolerance=limit if check else None,
            checked_with=f"openvino {package_version('openvino')}" if check else None,
            opset_version=source.opset_version,
            seconds=time.perf_counter() - started,
            notes=(*source.notes, *check_notes(checks)),
            details={"operations": operations},
        )


def _convert(source: OnnxSource, path: Path, *, compress: bool) -> int:
    """Read, write; returns the number of operations. ``read_model`` sends no telemetry, ``convert_model`` may."""
    import openvino

    try:
        converted = openvino.Core().read_model(str(source.path))
        openvino.save_model(converted, str(path), compress_to_fp16=compress)
    except RuntimeError as error:
        raise UnsupportedExportError(f"OpenVINO cannot read the ONNX file: {first_line(error)}") from error
    return len(converted.get_ops())


def openvino_run(path: Path) -> Run:
    """A function that runs an IR on the CPU in single precision, for comparing."""
    import openvino
    from openvino import properties

    try:
        # Left alone, the CPU plug-in computes in bf16 where the processor can.
        hints = {properties.hint.inference_precision: openvino.Type.f32}
        compiled = openvino.Core().compile_model(str(path), "CPU", hints)
    except RuntimeError as error:
        raise UnsupportedExportError(f"OpenVINO cannot compile the exported file: {first_line(error)}") from error

    def run(inputs: tuple[Tensor, ...]) -> Sequence[np.ndarray]:
        try:
            results = compiled([value.contiguous().numpy() for value in inputs])
        except RuntimeError as error:
            raise UnsupportedExportError(f"OpenVINO cannot run the exported file: {first_line(error)}") from error
        return [results[output] for output in compiled.outputs]

    return run
