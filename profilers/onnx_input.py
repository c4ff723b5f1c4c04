"""ONNX files as inputs of runtimes: exported from a module on the fly, with the inputs they want."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from exporters.base import EXAMPLE_SHAPES
from profilers.errors import ProfilerUsageError, RefusedError
from profilers.feeds import AnyArray, Feeds, check_size, made_up

if TYPE_CHECKING:
    from torch import nn

    from exporters.base import Inputs

_NUMPY_TYPES = {1: "float32", 10: "float16", 11: "float64", 2: "uint8", 3: "int8", 6: "int32", 7: "int64", 9: "bool"}


@contextmanager
def onnx_file(model: nn.Module | str | Path, example_inputs: Inputs | None) -> Iterator[Path]:
    """The path of ``model`` as an ONNX file; a module is exported into a folder that lives as long as this context."""
    if isinstance(model, (str, Path)):
        path = Path(model)
        if not path.is_file():
            raise ProfilerUsageError(f"There is no file {path}; pass a module or an ONNX file.")
        yield path
        return
    from exporters.errors import ExporterError
    from exporters.formats.onnx import OnnxExporter

    if example_inputs is None:
        raise ProfilerUsageError("A module needs example_inputs, so that it can be exported for this target.")
    with tempfile.TemporaryDirectory() as folder:
        try:
            info = OnnxExporter().export(model, example_inputs, Path(folder) / "model.onnx", check=False)
        except ExporterError as error:
            raise RefusedError(str(error)) from error
        yield info.path


def onnx_precision(path: Path) -> str:
    """ "int8" for a quantised graph, else the type of its largest weight: "fp32", "fp16" or "bf16"."""
    import onnx

    graph = _load(path).graph
    if any(node.op_type in {"QuantizeLinear", "DequantizeLinear", "ConvInteger"} for node in graph.node):
        return "int8"
    largest = max(graph.initializer, key=lambda tensor: _numel(tensor.dims), default=None)
    names = {onnx.TensorProto.FLOAT16: "fp16", onnx.TensorProto.BFLOAT16: "bf16"}
    return names.get(largest.data_type, "fp32") if largest is not None else "fp32"


def onnx_inputs(
    path: Path, example_inputs: Inputs | Feeds | None, batch: int | None, *, seed: int = 0
) -> dict[str, AnyArray]:
    """Random inputs, never zero, for every input of an ONNX file, with the batch size asked for.

    Args:
        example_inputs: what they are like; ``None`` makes them up from the file, ``Feeds`` are taken as they are.

    Raises:
        ProfilerUsageError: the file has a fixed batch of another size, free sizes besides the batch and no example, or
            sizes that no input has.
    """
    proto = _load(path)
    weights = {tensor.name for tensor in proto.graph.initializer}
    wanted = [value for value in proto.graph.input if value.name not in weights]
    if example_inputs is None:
        values = _from_file(path, proto, wanted, batch, seed)
    elif isinstance(example_inputs, Feeds):
        values = [example_inputs.arrays[value.name] for value in wanted if value.name in example_inputs.arrays]
    else:
        values = like_example(example_inputs, batch, seed)
    if len(values) != len(wanted):
        raise ProfilerUsageError(f"{path.name} has {len(wanted)} inputs, the example {len(values)}.")
    for value, array in zip(wanted, values, strict=True):
        for axis, dim in enumerate(value.type.tensor_type.shape.dim):
            if dim.HasField("dim_value") and dim.dim_value != array.shape[axis]:
                raise ProfilerUsageError(
                    f"{path.name} wants size {dim.dim_value} along axis {axis} of {value.name!r}, not "
                    f"{array.shape[axis]}; choose that size or export with a dynamic batch."
                )
    return {value.name: array for value, array in zip(wanted, values, strict=True)}


def like_example(example_inputs: Inputs, batch: int | None, seed: int) -> list[AnyArray]:
    """Arrays like the tensors of an example."""
    from exporters.example import as_example
    from exporters.inputs import random_inputs

    drawn = random_inputs(as_example(example_inputs).tensors, batch, seed=seed)
    return [tensor.cpu().numpy() for tensor in drawn]


def _from_file(path: Path, proto: Any, wanted: Sequence[Any], batch: int | None, seed: int) -> list[AnyArray]:
    """Arrays as the file says they should be."""
    made_at = _example_shapes(proto)
    shapes, types = [], []
    for value in wanted:
        sizes = [dim.dim_value if dim.HasField("dim_value") else 0 for dim in value.type.tensor_type.shape.dim]
        known = made_at.get(value.name, [])
        if len(known) == len(sizes):
            sizes[1:] = [size or known[axis] for axis, size in enumerate(sizes) if axis]
        if 0 in sizes[1:]:
            raise ProfilerUsageError(
                f"{path.name} leaves sizes of its input {value.name!r} open: {sizes}; pass example inputs."
            )
        kind = _NUMPY_TYPES.get(value.type.tensor_type.elem_type)
        if kind is None:
            raise ProfilerUsageError(f"The input {value.name!r} of {path.name} has a type that cannot be made up.")
        if sizes:
            sizes[0] = sizes[0] or batch or 1
        check_size(path.name, value.name, sizes)
        shapes.append(sizes)
        types.append(kind)
    return made_up(shapes, types, batch, seed=seed)


def _example_shapes(proto) -> dict[str, list[int]]:  # type: ignore[no-untyped-def]  # onnx ships no types
    """At which sizes the exporter made a file whose axes are open; empty if it does not say."""
    import json

    text = next((entry.value for entry in proto.metadata_props if entry.key == EXAMPLE_SHAPES), "{}")
    try:
        found = json.loads(text)
        return {name: [int(size) for size in shape] for name, shape in found.items()}
    except (ValueError, TypeError, AttributeError):
        return {}


def _load(path: Path):  # type: ignore[no-untyped-def]  # onnx ships no types
    import onnx
    from google.protobuf.message import DecodeError  # type: ignore[import-untyped]

    if not path.is_file():
        raise ProfilerUsageError(f"There is no file {path}; pass a module or an ONNX file.")
    try:
        return onnx.load(str(path), load_external_data=False)
    except (DecodeError, OSError) as error:
        raise ProfilerUsageError(f"{path} is no ONNX file that can be read; export it again.") from error


def _numel(dims: Sequence[int]) -> int:
    result = 1
    for size in dims:
        result *= size
    return result
