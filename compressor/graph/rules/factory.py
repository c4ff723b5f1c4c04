"""Tensors made in the forward. A size taken from a labelled axis gives that axis' labels; a literal gives none."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from compressor.graph.labels.flow import Flow
from compressor.graph.recording.dims import Dim
from compressor.graph.recording.values import Node
from compressor.graph.rules import rule

_DROPOUTS = ("dropout1d", "dropout2d", "dropout3d", "feature_dropout", "feature_dropout_", "feature_alpha_dropout",
             "feature_alpha_dropout_")  # fmt: skip
"""Calls whose noise is made inside, of one number for every channel of what it falls on."""


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
    noise = flow.call(*_DROPOUTS)
    if noise is not None and noise.values:
        x = noise.values[0][1]
        output.axes = [axes if n == m else None for axes, n, m in zip(x.axes, x.shape, output.shape, strict=False)]
        return
    for axis, (size, n) in enumerate(zip(_sizes(node, len(output.shape)), output.shape, strict=False)):
        source = flow.labels_of(size) if isinstance(size, Dim) and int(size) == n else None
        if source is not None and len(source) == n:
            output.axes[axis] = source


def _sizes(node: Node, rank: int) -> list[Any]:
    """The size of every axis as the program wrote it; nothing where it is not understood."""
    if node.call is None:
        return []
    known = (*node.call.args, node.call.kwargs.get("size"))
    given = [arg for arg in known if isinstance(arg, (int, tuple, list)) or _is_number(arg)]
    listed = next((arg for arg in given if isinstance(arg, (tuple, list)) and len(arg) == rank), None)
    if listed is not None:
        return list(listed)
    numbers = [arg for arg in given if not isinstance(arg, (tuple, list))]
    if node.op == "eye" and len(numbers) == 1:
        numbers *= 2
    if node.op == "arange" and len(numbers) > 1 and numbers[0] == 0:
        numbers = numbers[1:2]
    return numbers if len(numbers) == rank else []


def _is_number(argument: Any) -> bool:
    """Whether it is a tensor that stands for a size, as the longest of packed sequences does."""
    return isinstance(argument, Tensor) and argument.dim() == 0
