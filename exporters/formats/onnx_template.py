"""The graph of an ONNX file without its weights, from which files of narrower networks are made without a trace.

Tracing a network takes seconds to minutes, giving weights to a graph a moment. Networks that were trimmed out of one
another have one forward, so that they differ in weights, numbers of groups and sizes that are written into reshapes,
and lack the residual branches that were removed. Whether that is all is not reasoned about: what comes out is compared
with PyTorch like any other file, and a network that computes something else is traced.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from exporters.axes import Asked, read_axes
from exporters.base import CHECK_BATCHES, TOLERANCES, Inputs
from exporters.errors import UnsupportedExportError
from exporters.example import Example, as_example
from exporters.files import staged
from exporters.formats.onnx_runtime import onnxruntime_run
from exporters.formats.onnx_write import save, translate
from exporters.inputs import eval_mode, flatten_outputs, model_precision
from exporters.quiet import first_line
from exporters.traced import Comparison, Traced, attempt, write_traced

#: More than any graph has that is not a mistake.
MOST_BYTES = 256 * 1024 * 1024

_WEIGHTS, _NOTES = "compressor.weights", "compressor.notes"


@dataclass(frozen=True)
class Template:
    """A template that was read.

    Attributes:
        proto: the graph as an ``onnx.ModelProto``.
        weights: names of the tensors that the file had of its model, and their shapes.
        notes: what a reader of any file made from it should know.
    """

    proto: Any
    weights: Mapping[str, Sequence[int]]
    notes: tuple[str, ...]

    @property
    def dynamic_batch(self) -> bool:
        """Whether the first axis of an input is open."""
        shapes = [value.type.tensor_type.shape.dim for value in self.proto.graph.input]
        return any(shape and shape[0].dim_param for shape in shapes)


def write_template(
    model: nn.Module, example_inputs: Inputs, path: Path, *, dynamic_axes: Asked = "auto", check: bool = True
) -> None:
    """Write the graph of ``model`` to ``path``, with the axes open that an export of it leaves open.

    Args:
        example_inputs, dynamic_axes, check: as for :meth:`exporters.formats.onnx.OnnxExporter.export`.

    Raises:
        UnsupportedExportError, ExportCheckError: as for an export.
    """
    import onnx

    example, path = as_example(example_inputs), Path(path)
    comparison = Comparison(onnxruntime_run, CHECK_BATCHES, TOLERANCES[model_precision(model)], 0, "The ONNX file")
    with tempfile.TemporaryDirectory() as scratch:
        whole = Path(scratch) / "whole.onnx"
        done = write_traced(
            model,
            example,
            whole,
            lambda staging, batch, axes: save(translate(model, example, axes, batch=batch, optimize=False), staging),
            comparison if check else None,
            dynamic_batch=True,
            axes=read_axes(dynamic_axes, model, example),
        )
        proto = onnx.load(str(whole), load_external_data=False)
    graph, own = proto.graph, _tensors(model)
    weights = {tensor.name: list(tensor.dims) for tensor in graph.initializer if tensor.name in own}
    constants = [tensor for tensor in graph.initializer if tensor.name not in own]
    if any(tensor.data_location == onnx.TensorProto.EXTERNAL for tensor in constants):
        raise UnsupportedExportError(f"{type(model).__name__} has constants of gigabytes, which no template keeps.")
    del graph.initializer[:]
    graph.initializer.extend(constants)
    for key, value in ((_WEIGHTS, weights), (_NOTES, done.notes)):
        proto.metadata_props.add(key=key, value=json.dumps(value))
    with staged(path) as staging:
        onnx.save(proto, str(staging))


def read_template(path: Path) -> Template:
    """The template in a file. Raises :class:`UnsupportedExportError` if it is none."""
    import onnx

    try:
        if path.stat().st_size > MOST_BYTES:
            raise ValueError(f"it has {path.stat().st_size} bytes")
        proto = onnx.load(str(path), load_external_data=False)
        told = {entry.key: entry for entry in proto.metadata_props}
        weights, notes = (json.loads(told[key].value) for key in (_WEIGHTS, _NOTES))
        for key in (_WEIGHTS, _NOTES):
            proto.metadata_props.remove(told[key])
    except Exception as error:  # protobuf's errors share no base class with those of a missing file or key
        raise UnsupportedExportError(f"{path} is no graph to make files from: {first_line(error)}") from error
    return Template(proto, {name: tuple(shape) for name, shape in weights.items()}, tuple(map(str, notes)))


def write_filled(template: Path, model: nn.Module, example: Example, path: Path, comparison: Comparison) -> Traced:
    """Write ``model`` to ``path`` as the template has it, checked.

    Raises:
        UnsupportedExportError, ExportCheckError: the model is not what the template is of.
    """
    read = read_template(template)
    return attempt(
        model,
        example,
        path,
        lambda staging, batch, axes: save(_filled(read, model, example), staging),
        comparison,
        read.dynamic_batch,
        tuple({} for _ in example.tensors),
        read.notes,
    )


def _filled(template: Template, model: nn.Module, example: Example) -> Any:
    """The template with the weights of ``model`` as a ``torch.onnx.ONNXProgram``."""
    import onnx_ir

    proto, own = template.proto, _tensors(model)
    try:
        _leave_out(proto.graph, {name for name in template.weights if name not in own})
        _set_groups(proto.graph, model)
        if any(name not in own or own[name].shape != shape for name, shape in template.weights.items()):
            _free_sizes(proto.graph)
            del proto.graph.value_info[:]  # sizes of the network that was traced
        _set_outputs(proto.graph, model, example)
        for name in template.weights:
            if name in own:
                tensor = onnx_ir.tensor(own[name].detach().cpu().contiguous(), name=name)
                proto.graph.initializer.append(onnx_ir.to_proto(tensor))
        program = torch.onnx.ONNXProgram(onnx_ir.from_proto(proto), None)
        program.optimize()
    except Exception as error:  # whatever a graph of another network leads to
        raise UnsupportedExportError(f"The graph is not that of {type(model).__name__}: {first_line(error)}") from error
    return program


def _tensors(model: nn.Module) -> dict[str, Tensor]:
    return {
        **dict(model.named_parameters(remove_duplicate=False)),
        **dict(model.named_buffers(remove_duplicate=False)),
    }


def _leave_out(graph: Any, absent: set[str]) -> None:
    """Without what is computed from weights that are ``absent``: of a residual sum the stream is left."""
    alias: dict[str, str] = {}
    kept = []
    for node in graph.node:
        for index, name in enumerate(node.input):
            node.input[index] = alias.get(name, name)
        there = [name for name in node.input if name not in absent]
        if len(there) == len(node.input):
            kept.append(node)
        elif node.op_type == "Add" and len(there) == 1:
            alias[node.output[0]] = there[0]
        else:
            absent.update(node.output)
    if any(value.name in absent or value.name in alias for value in graph.output):
        raise ValueError("an output lacks its weights")
    if len(kept) < len(graph.node):
        nodes = [type(node).FromString(node.SerializeToString()) for node in kept]
        del graph.node[:]
        graph.node.extend(nodes)


def _set_groups(graph: Any, model: nn.Module) -> None:
    """Convolutions have as many groups as their modules; those of no module keep theirs."""
    modules: Mapping[str, nn.Module] = dict(model.named_modules())
    for node in graph.node:
        if node.op_type in ("Conv", "ConvTranspose"):
            groups = getattr(modules.get(node.input[1].rpartition(".")[0]), "groups", None)
            for attribute in node.attribute:
                if attribute.name == "group" and isinstance(groups, int):
                    attribute.i = groups


def _free_sizes(graph: Any) -> None:
    """The last size that is written into a reshape follows from the data, as in flattening before a head."""
    import onnx

    constants = {node.output[0]: _value(node) for node in graph.node if node.op_type == "Constant"}
    made = {name: node for node in graph.node for name in node.output}
    nodes = []
    for node in graph.node:
        shape = made.get(node.input[1]) if node.op_type == "Reshape" else None
        if shape is not None and shape.op_type == "Concat" and len(shape.input) > 1:
            first, *sizes = (constants.get(name) for name in shape.input)
            if sizes[-1] is not None and not any(-1 in size for size in (first, *sizes) if size is not None):
                free, whole = f"{node.output[0]}.free", f"{node.output[0]}.shape"
                if first is None and None not in sizes:  # the batch, as it is
                    after = [size for each in sizes for size in each or ()]
                    nodes.append(onnx.helper.make_node("Constant", [], [whole], value_ints=[0, *after[:-1], -1]))
                    _drop(node, "allowzero")
                else:
                    nodes.append(onnx.helper.make_node("Constant", [], [free], value_ints=[*sizes[-1][:-1], -1]))
                    nodes.append(onnx.helper.make_node("Concat", [*shape.input[:-1], free], [whole], axis=0))
                node.input[1] = whole
        nodes.append(type(node).FromString(node.SerializeToString()))
    del graph.node[:]
    graph.node.extend(nodes)


def _drop(node: Any, name: str) -> None:
    for attribute in [each for each in node.attribute if each.name == name]:
        node.attribute.remove(attribute)


def _value(constant: Any) -> list[int] | None:
    """The whole numbers of a constant node in one axis; None for another."""
    from onnx import numpy_helper

    (attribute,) = constant.attribute
    if attribute.name == "value_ints":
        return list(attribute.ints)
    value = numpy_helper.to_array(attribute.t) if attribute.name == "value" else None
    return value.tolist() if value is not None and value.ndim == 1 and value.dtype.kind == "i" else None


def _set_outputs(graph: Any, model: nn.Module, example: Example) -> None:
    """Outputs have the sizes of the model's, but for axes that are open."""
    with eval_mode(model), torch.inference_mode():
        given = [value.clone() for value in example.tensors]
        found = [value for _, value in flatten_outputs(example.run(model, given))]
    if len(found) != len(graph.output):
        raise ValueError(f"{len(graph.output)} outputs, not {len(found)}")
    for value, tensor in zip(graph.output, found, strict=True):
        sizes = value.type.tensor_type.shape.dim
        if len(sizes) != tensor.ndim:
            raise ValueError(f"{value.name} has {len(sizes)} axes, not {tensor.ndim}")
        for size, own in zip(sizes, tensor.shape, strict=True):
            if not size.dim_param:
                size.dim_value = own
