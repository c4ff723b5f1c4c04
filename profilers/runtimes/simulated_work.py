"""The products of a network, read from a forward pass without data or from an ONNX file, for the simulated device."""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from exporters.base import Inputs
from exporters.example import as_example
from exporters.inputs import batch_axes
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


_aten = torch.ops.aten


class _Recorder(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Notes every convolution and matrix product that runs inside."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.works: list[Product] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        overload = func.overloadpacket
        if overload is _aten.convolution and not args[6]:
            weight, groups = args[1], args[8]
            self.works.append(
                Product(
                    channels_in=weight.shape[1],
                    channels_out=weight.shape[0] // groups,
                    positions=result.numel() // result.shape[1],
                    kernel=math.prod(weight.shape[2:]),
                    groups=groups,
                )
            )
        elif overload in (_aten.mm, _aten.bmm, _aten.addmm, _aten.baddbmm):
            left, right = (args[1], args[2]) if overload in (_aten.addmm, _aten.baddbmm) else (args[0], args[1])
            self.works.append(_product(left.shape, right.shape))
        return result


def _product(left: Sequence[int], right: Sequence[int]) -> Product:
    return Product(channels_in=right[-2], channels_out=right[-1], positions=math.prod(left[:-1]))


def module_work(model: nn.Module, example_inputs: Inputs, batch: int | None) -> tuple[int, list[Product]]:
    """Batch size and products of one forward pass; no data moves."""
    example = as_example(example_inputs)
    inputs = []
    for value, batched in zip(example.tensors, batch_axes(example.tensors), strict=True):
        shape = (batch, *value.shape[1:]) if batched and batch is not None else tuple(value.shape)
        inputs.append(torch.empty(shape, dtype=value.dtype, device="meta"))
    on_meta = copy.deepcopy(model).to("meta").eval()
    with torch.no_grad(), _Recorder() as recorder:
        example.run(on_meta, inputs)
    return inputs[0].shape[0] if inputs[0].ndim else 1, recorder.works


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
                _product(
                    left[::-1] if attributes.get("transA") else left,
                    right[::-1] if attributes.get("transB") else right,
                )
            )
        elif node.op_type == "MatMul":
            works.append(_product(shapes[node.input[0]], shapes[node.input[1]]))
    first = next(iter(feeds.values()), None)
    return (first.shape[0] if first is not None and first.ndim else 1), works
