"""ONNX by torch's graph exporter, checked in ONNX Runtime.

The batch axis is dynamic. If a model refuses that (it reads its batch size into Python, or a shape comes out constant)
the batch of the example is kept and the reason is recorded. Inputs bear the names of the forward's arguments.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from torch import nn

from exporters.axes import Asked, Axes, read_axes
from exporters.base import (
    CHECK_BATCHES,
    TOLERANCES,
    Availability,
    ExportInfo,
    Inputs,
    package_availability,
    package_version,
    require,
)
from exporters.check import check_notes
from exporters.errors import ExportCheckError, UnsupportedExportError
from exporters.example import as_example
from exporters.files import total_bytes
from exporters.formats.onnx_runtime import onnxruntime_run
from exporters.formats.onnx_template import write_filled
from exporters.formats.onnx_write import save, translate
from exporters.inputs import model_precision
from exporters.opset import check_opset
from exporters.traced import Comparison, write_traced


class OnnxExporter:
    """See the module's documentation."""

    name = "onnx"
    suffix = ".onnx"

    def is_available(self) -> Availability:
        """onnx, onnxscript and onnxruntime come with the default installation."""
        for module in ("onnx", "onnxscript", "onnxruntime"):
            found = package_availability(module, package=module, extra=None)
            if not found:
                return found
        return Availability(True)

    def export(
        self,
        model: nn.Module,
        example_inputs: Inputs,
        path: Path,
        *,
        opset_version: int | None = None,
        dynamic_batch: bool = True,
        dynamic_axes: Asked = None,
        batches: Sequence[int] = CHECK_BATCHES,
        tolerance: float | None = None,
        check: bool = True,
        seed: int = 0,
        template: Path | None = None,
    ) -> ExportInfo:
        """Write ``model`` to ``path`` as one ONNX file (plus ``path.data`` when it is above 2 GB).

        Args:
            example_inputs: a tensor, a tuple of arguments, or an :class:`exporters.example.Example` with keyword
                arguments; axis 0 is the batch. Numbers and text become constants of the file.
            opset_version: ONNX operator set of the file; ``None`` takes the exporter's own.
            dynamic_batch: ``False`` keeps the batch size of the example.
            dynamic_axes: axes to leave open besides, by input: ``{"input": {2: "length"}}``. Those of one name have one
                size. ``"auto"``: the positions of sequences, where the model lets them.
            batches: batch sizes compared with PyTorch.
            tolerance: largest accepted max|difference| / max|output|; ``None`` takes the precision's.
            template: a file of :func:`exporters.formats.onnx_template.write_template`, of a network that this one was
                trimmed from. Its graph and its open axes are taken, without a trace, if the check then passes.

        Raises:
            ExporterUsageError: there is no such input, axis or operator set.
            UnsupportedExportError: the model cannot be traced, an operator has no ONNX form (in that operator set), or
                an axis that was asked for cannot be open.
            ExportCheckError: ONNX Runtime computes something else.
        """
        require(self.is_available(), "The ONNX exporter")
        started = time.perf_counter()
        path = Path(path)
        example = as_example(example_inputs)
        check_opset(opset_version)
        axes = read_axes(dynamic_axes, model, example)
        precision = model_precision(model)
        limit = TOLERANCES[precision] if tolerance is None else tolerance
        comparison = Comparison(onnxruntime_run, batches, limit, seed, "The ONNX file")
        written = None
        if template is not None and dynamic_batch and opset_version is None:
            with contextlib.suppress(UnsupportedExportError, ExportCheckError):  # it is the template of another network
                written = write_filled(template, model, example, path, comparison)
        if written is None:
            written = write_traced(
                model,
                example,
                path,
                lambda staging, batch, opened: save(
                    translate(model, example, opened, batch=batch, opset=opset_version), staging, opset=opset_version
                ),
                comparison if check else None,
                dynamic_batch=dynamic_batch,
                axes=axes,
            )
        constants = example.constants(model)
        if len(written.files) == 1:  # an older, larger model may have left its weights here
            path.with_name(path.name + ".data").unlink(missing_ok=True)
        files = tuple(path.with_name(name) for name in written.files)
        return ExportInfo(
            format=self.name,
            path=path,
            files=files,
            bytes=total_bytes(files),
            precision=precision,
            dynamic_batch=written.dynamic,
            checks=written.checks,
            tolerance=limit if written.checks else None,
            checked_with=f"onnxruntime {package_version('onnxruntime', 'onnxruntime-gpu')}" if written.checks else None,
            opset_version=written.written.opset,
            seconds=time.perf_counter() - started,
            notes=(*written.notes, *constant_notes(constants), *check_notes(written.checks)),
            details=open_details(example.names(model), written.written.opened),
        )


def open_details(names: Sequence[str], opened: Axes) -> dict[str, Any]:
    """What :class:`ExportInfo` says of axes that are open besides the batch."""
    found = {name: {str(axis): label for axis, label in axes.items()} for name, axes in zip(names, opened, strict=True)}
    found = {name: axes for name, axes in found.items() if axes}
    return {"open_axes": found} if found else {}


def constant_notes(constants: Sequence[str]) -> list[str]:
    """What a reader should know about arguments that are no tensors."""
    return [f"Built into the file: {', '.join(constants)}."] if constants else []
