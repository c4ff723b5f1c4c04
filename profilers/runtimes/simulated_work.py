"""The products of a network, read from an ONNX file, for the simulated device."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from exporters.base import Inputs
from profilers.onnx_input import onnx_inputs


@dataclass(frozen=True)
class Product:
    """One product: ``positions`` times a matrix of ``channels_in`` by ``channels_out``, in ``groups`` groups.

    ``channels_in`` and ``channels_out`` are per group; ``kernel`` is the number of kernel elements.
    """

    channels_in: int
    channels_out: int
    positions: int
    kernel: int = 1
    groups: int = 1


def product(left: Sequence[int], right: Sequence[int]) -> Product:
    """That of two matrices, or stacks of them, of these shapes."""
    return Product(channels_in=right[-2], channels_out=right[-1], positions=math.prod(left[:-1]))


def onnx_work(path: Path, example_inputs: Inputs | None, batch: int | None) -> tuple[int, list[Product]]:
    """Batch size and products of an ONNX file, by shape inference."""
    import onnx

    feeds = onnx_inputs(path, example_inputs, batch)
    model = onnx.load(str(path))
    for value in model.graph.input:
        for axis, size in enumerate(feeds[value.name].shape):
            value.type.tensor_type.shape.dim[axis].dim_value = size
    del model.graph.value_info[:]
    for value in model.graph.output:
        value.type.tensor_type.ClearField("shape")
    inferred = onnx.shape_inference.infer_shapes(model, data_prop=True)
    shapes = {tensor.name: tuple(tensor.dims) for tensor in inferred.graph.initializer}
    for value in [*inferred.graph.input, *inferred.graph.value_info, *inferred.graph.output]:
        shapes[value.name] = tuple(dim.dim_value for dim in value.type.tensor_type.shape.dim)
    works = []
    for node in inferred.graph.node:
        if node.op_type == "Conv":
            attributes = {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
            weight, output, groups = shapes[node.input[1]], shapes[node.output[0]], attributes.get("group", 1)
            positions = math.prod(output) // output[1]
            works.append(Product(weight[1], weight[0] // groups, positions, math.prod(weight[2:]), groups))
        elif node.op_type == "Gemm":
            attributes = {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
            left, right = shapes[node.input[0]], shapes[node.input[1]]
            works.append(
                product(
                    left[::-1] if attributes.get("transA") else left,
                    right[::-1] if attributes.get("transB") else right,
                )
            )
        elif node.op_type == "MatMul":
            works.append(product(shapes[node.input[0]], shapes[node.input[1]]))
        elif node.op_type in ("LSTM", "GRU", "RNN"):
            steps = math.prod(shapes[node.input[0]][:2])
            for directions, rows, columns in (shapes[name] for name in node.input[1:3]):
                works.append(Product(columns, rows, steps, groups=directions))
    first = next(iter(feeds.values()), None)
    return (first.shape[0] if first is not None and first.ndim else 1), works
