"""The products of a module, from a forward pass in which no data moves."""

from __future__ import annotations

import copy
import math
from typing import Any

import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from exporters.base import Inputs
from exporters.example import as_example
from exporters.inputs import batch_axes
from profilers.runtimes.simulated_work import Product, product

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
            self.works.append(product(left.shape, right.shape))
        return result


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
