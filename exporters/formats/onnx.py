"""ONNX by torch's graph exporter, checked in ONNX Runtime.

The batch axis is dynamic. If a model refuses that (it reads its batch size into Python, or a shape comes out constant)
the batch of the example is kept and the reason is recorded. Inputs bear the names of the forward's arguments.
"""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from exporters.axes import Asked, Axes, dynamic_shapes, read_axes, tracing_sizes
from exporters.base import (
    CHECK_BATCHES,
    EXAMPLE_SHAPES,
    TOLERANCES,
    Availability,
    ExportInfo,
    Inputs,
    package_availability,
    package_version,
    require,
)
from exporters.check import Run, check_notes
from exporters.errors import UnsupportedExportError
from exporters.example import Example, as_example
from exporters.files import total_bytes
from exporters.inputs import eval_mode, flatten_outputs, model_device, model_precision, random_inputs
from exporters.opset import at_opset, check_opset
from exporters.quiet import first_line
from exporters.traced import Comparison, Written, write_traced
from exporters.translations import translations

#: Protocol buffers end at 2 GiB; the graph itself needs some of it.
SINGLE_FILE_BYTES = 2_000_000_000

#: Written by the exporter for debugging; they hold source paths of the machine and double the size of small files.
_DEBUG_METADATA = ("pkg.torch.onnx.stack_trace", "pkg.torch.onnx.fx_node")


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
        written = write_traced(
            model,
            example,
            path,
            lambda staging, batch, opened: _write(model, example, staging, opened, batch=batch, opset=opset_version),
            Comparison(onnxruntime_run, batches, limit, seed, "The ONNX file") if check else None,
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
            tolerance=limit if check else None,
            checked_with=f"onnxruntime {package_version('onnxruntime', 'onnxruntime-gpu')}" if check else None,
            opset_version=written.written.opset,
            seconds=time.perf_counter() - started,
            notes=(*written.notes, *constant_notes(constants), *check_notes(written.checks)),
            details=open_details(example.names(model), written.written.opened),
        )


def _write(model: nn.Module, example: Example, path: Path, axes: Axes, *, batch: bool, opset: int | None) -> Written:
    """Trace, translate, save."""
    # Two samples: a batch of one would be taken for a constant by the tracer.
    sizes = tracing_sizes(example, axes)
    inputs = random_inputs(example.tensors, 2 if batch else None, device=model_device(model), sizes=sizes)
    call, opened = example.with_tensors(inputs), any(axes)
    names = example.names(model)
    with eval_mode(model), torch.no_grad():
        try:
            outputs = [name for name, _ in flatten_outputs(example.run(model, [value.clone() for value in inputs]))]
            program = torch.onnx.export(
                model,
                call.args,
                kwargs=dict(call.kwargs),
                dynamo=True,
                dynamic_shapes=dynamic_shapes(model, example, axes, batch=batch, named=True)
                if batch or opened
                else None,
                opset_version=None if opset is None else max(opset, 18),  # it writes none below
                input_names=list(names),
                output_names=outputs if len(set(outputs)) == len(outputs) else None,
                custom_translation_table=translations(),
                verbose=False,
            )
        except Exception as error:  # any exception: this runs the user's forward and a tracer over it
            raise UnsupportedExportError(
                f"{type(model).__name__} cannot be exported to ONNX: {first_line(error)}"
            ) from error
    if program is None:
        raise UnsupportedExportError(f"torch.onnx.export gave nothing for {type(model).__name__}.")
    found = [value.name for value in program.model.graph.inputs]
    if found != list(names):  # whoever feeds the file by name would feed something else
        raise UnsupportedExportError(
            f"The ONNX file of {type(model).__name__} takes {', '.join(map(str, found))}, not {', '.join(names)}."
        )
    for node in program.model.graph.all_nodes():
        for key in _DEBUG_METADATA:
            node.metadata_props.pop(key, None)
    left = tuple(_open_axes(value) for value in program.model.graph.inputs)
    if any(left):
        shapes = {name: list(tensor.shape) for name, tensor in zip(names, example.tensors, strict=True)}
        program.model.metadata_props[EXAMPLE_SHAPES] = json.dumps(shapes)
    weight_bytes = sum(
        value.const_value.nbytes for value in program.model.graph.initializers.values() if value.const_value
    )
    large = weight_bytes > SINGLE_FILE_BYTES
    program.save(str(path), external_data=large)
    version = int(program.model.opset_imports[""])
    if opset is not None and version != opset:
        at_opset(path, opset, large=large)
        version = opset
    return Written(version, left)


def _open_axes(value: Any) -> dict[int, str]:
    """The open axes of a graph's input, but for its first."""
    return {axis: str(size) for axis, size in enumerate(value.shape) if axis and not isinstance(size, int)}


def open_details(names: Sequence[str], opened: Axes) -> dict[str, Any]:
    """What :class:`ExportInfo` says of axes that are open besides the batch."""
    found = {name: {str(axis): label for axis, label in axes.items()} for name, axes in zip(names, opened, strict=True)}
    found = {name: axes for name, axes in found.items() if axes}
    return {"open_axes": found} if found else {}


def constant_notes(constants: Sequence[str]) -> list[str]:
    """What a reader should know about arguments that are no tensors."""
    return [f"Built into the file: {', '.join(constants)}."] if constants else []


def onnxruntime_run(path: Path) -> Run:
    """A function that runs an ONNX file on the CPU, for comparing."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    try:
        session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime's own exceptions share no base class
        raise UnsupportedExportError(f"ONNX Runtime cannot load the exported file: {first_line(error)}") from error
    names = [value.name for value in session.get_inputs()]

    def run(inputs: tuple[Tensor, ...]) -> Sequence[np.ndarray]:
        feeds = {name: value.contiguous().numpy() for name, value in zip(names, inputs, strict=True)}
        try:
            return list(session.run(None, feeds))
        except Exception as error:  # a shape baked in at trace time shows up here
            raise UnsupportedExportError(f"ONNX Runtime cannot run the exported file: {first_line(error)}") from error

    return run
