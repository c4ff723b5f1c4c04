"""Tensors made in the forward. A size taken from a labelled axis gives that axis' labels; a literal gives none."""

from __future__ import annotations

from typing import Any

from compressor.graph.dims import Dim
from compressor.graph.flow import Flow
from compressor.graph.record import Node
from compressor.graph.rules import rule


@rule(
    "zeros_like",
    "ones_like",
    "full_like",
    "rand_like",
    "randn_like",
    "empty_like",
    "fill",
    "zero",
    "normal",
    "uniform",
    "bernoulli_like",
    "new_empty_strided",
    "exponential",
)
def like(flow: Flow, node: Node) -> None:
    for output in node.outputs:
        output.axes = list(node.inputs[0].axes)


@rule(
    "empty",
    "zeros",
    "ones",
    "full",
    "rand",
    "randn",
    "new_zeros",
    "new_ones",
    "new_full",
    "new_empty",
    "arange",
    "linspace",
    "scalar_tensor",
    "empty_strided",
    "randint",
    "randperm",
    "eye",
    "tril_indices",
    "triu_indices",
)
def make(flow: Flow, node: Node) -> None:
    output = node.outputs[0]
    sizes = _integers(node.call.args if node.call is not None else ())
    if node.call is not None:
        sizes += _integers((node.call.kwargs.get("size", ()),))
    for axis, n in enumerate(output.shape):
        for size in sizes:
            if isinstance(size, Dim) and int(size) == n and len(sizes) >= len(output.shape):
                source = flow.labels_of(size)
                if source is not None and len(source) == n:
                    output.axes[axis] = source
                break


def _integers(args: Any) -> list[int]:
    found: list[int] = []
    for arg in args:
        if isinstance(arg, int):
            found.append(arg)
        elif isinstance(arg, (tuple, list)):
            found += _integers(arg)
    return found
