"""From a model to an ONNX program by torch's graph exporter, and from a program to a file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from torch import nn

from exporters.axes import Axes, dynamic_shapes, tracing_sizes
from exporters.base import EXAMPLE_SHAPES
from exporters.errors import UnsupportedExportError
from exporters.example import Example
from exporters.inputs import eval_mode, flatten_outputs, model_device, random_inputs
from exporters.opset import at_opset
from exporters.quiet import first_line
from exporters.traced import Written
from exporters.translations import translations

#: Protocol buffers end at 2 GiB; the graph itself needs some of it.
SINGLE_FILE_BYTES = 2_000_000_000

#: Written by the exporter for debugging; they hold source paths of the machine and double the size of small files.
_DEBUG_METADATA = ("pkg.torch.onnx.stack_trace", "pkg.torch.onnx.fx_node")


def translate(
    model: nn.Module, example: Example, axes: Axes, *, batch: bool, opset: int | None = None, optimize: bool = True
) -> Any:
    """``model`` as a ``torch.onnx.ONNXProgram`` without anything that tells of this machine.

    Args:
        axes: the axes to leave open; ``batch`` whether that of the batch is, too.
        optimize: ``False`` keeps every weight as the model has it, under its name.

    Raises:
        UnsupportedExportError: the model cannot be traced, or the file would take other inputs.
    """
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
                optimize=optimize,
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
    if any(_open_axes(program)):
        shapes = {name: list(tensor.shape) for name, tensor in zip(names, example.tensors, strict=True)}
        program.model.metadata_props[EXAMPLE_SHAPES] = json.dumps(shapes)
    return program


def save(program: Any, path: Path, *, opset: int | None = None) -> Written:
    """Write ``program`` to ``path``, and above 2 GB its weights to ``path.data``, in the operator set asked for."""
    weights = (value.const_value for value in program.model.graph.initializers.values())
    large = sum(weight.nbytes for weight in weights if weight) > SINGLE_FILE_BYTES
    program.save(str(path), external_data=large)
    version = int(program.model.opset_imports[""])
    if opset is not None and version != opset:
        at_opset(path, opset, large=large)
        version = opset
    return Written(version, _open_axes(program))


def _open_axes(program: Any) -> Axes:
    """Of each input of the graph the open axes but for its first."""
    return tuple(
        {axis: str(size) for axis, size in enumerate(value.shape) if axis and not isinstance(size, int)}
        for value in program.model.graph.inputs
    )
