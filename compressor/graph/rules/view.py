"""Views: the same elements in the same order under another shape.

Input and output axes are matched greedily into runs of equal product; inside a run the input axes are merged and the
result is split again (``Flow.product`` and ``Flow.split``). Sizes the program spells out are bound to the labels of
the axis they make; ``-1`` and sizes PyTorch computes itself need nothing.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

from compressor.graph.labels.flow import Axis, Flow
from compressor.graph.recording.dims import Dim, FromAttribute, FromAxis
from compressor.graph.recording.values import Node, Value
from compressor.graph.rules import rule

_OPAQUE = {"multi_head_attention_forward"}  # computes sizes from several others
_SIZES_SPELT_OUT = {"view", "reshape", "unflatten", "_unsafe_view", "resize"}


@rule("as_strided")
def as_strided(flow: Flow, node: Node) -> None:
    """PyTorch's pooling restrides its 1x1 results; anything else is too wild to follow."""
    x, y = node.inputs[0], node.outputs[0]
    if x.shape == y.shape and sum(n > 1 for n in x.shape[1:]) <= 1:
        y.axes = list(x.axes)
    else:
        flow.fix_value(x, "as_strided")


@rule("view", "_unsafe_view", "reshape", "_reshape_alias", "unflatten")
def view(flow: Flow, node: Node) -> None:
    x, y = node.inputs[0], node.outputs[0]
    sizes = spelt_sizes(node, y)
    reshape(flow, x, y, sizes)
    # Attributes first: sizes that are computed from them are understood from what these turn out to be.
    for size, axis in sorted(zip(sizes, y.axes, strict=True), key=lambda pair: not _is_attribute(pair[0])):
        flow.bind(size, axis)
    if x.param is not None and 0 not in x.shape:
        y.param = x.param
        kept = {after[0]: x.param_axes[before[0]] for before, after in runs(x.shape, y.shape)
                if len(before) == len(after) == 1}  # fmt: skip
        y.param_axes = tuple(kept.get(d) for d in range(len(y.shape)))


def _is_attribute(size: Any) -> bool:
    return isinstance(size, Dim) and isinstance(size.origin, FromAttribute)


def spelt_sizes(node: Node, y: Value) -> list[Any]:
    """For each axis of ``y`` the size as the program wrote it, or -1 where nothing needs to be bound.

    A view inside another function of PyTorch's takes its sizes from shapes, unless the function was given that number.
    """
    call = node.call
    rank = len(y.shape)
    if call is None:
        return list(y.shape)
    if call.name in ("view_as", "reshape_as"):
        like = next((v for k, v in call.values if k in (1, "other")), y)
        return [Dim(n, FromAxis(like, axis)) for axis, n in enumerate(like.shape)]
    if call.name in _SIZES_SPELT_OUT:
        given = _flat(call.args[1:]) or _flat(tuple(call.kwargs.values()))
        if call.name == "unflatten":
            dim, inner = int(given[0]), given[1:]
            dim %= rank - len(inner) + 1
            return [-1] * dim + inner + [-1] * (rank - dim - len(inner))
        return given if len(given) == rank else list(y.shape)
    if call.name in _OPAQUE:
        return list(y.shape)
    numbers = {int(n): n for n in _flat(tuple(call.args)) + _flat(tuple(call.kwargs.values()))}
    return [numbers.get(n, -1) for n in y.shape]


def _flat(args: tuple[Any, ...]) -> list[Any]:
    found: list[Any] = []
    for arg in args:
        if isinstance(arg, int):
            found.append(arg)
        elif isinstance(arg, (tuple, list)):
            found += _flat(tuple(arg))
    return found


def reshape(flow: Flow, x: Value, y: Value, sizes: list[Any]) -> None:
    """Set the labels of ``y``, a reshape of ``x`` to ``sizes`` as the program wrote them."""
    literal = [type(size) is int and size != -1 for size in sizes]
    if 0 in x.shape:
        flow.fix_value(x, "view of an empty tensor")
        return
    y.axes = [None] * len(y.shape)
    for before, after in runs(x.shape, y.shape):
        if len(before) == 1 and len(after) == 1:
            y.axes[after[0]] = x.axes[before[0]]
            continue
        if all(x.axes[i] is None for i in before):
            continue
        merged: Axis = None
        size = 1
        for i in before:
            merged = flow.product(merged, size, x.axes[i], x.shape[i])
            size *= x.shape[i]
        for j in after[:-1]:
            rest = size // y.shape[j]
            last = j == after[-2] and literal[after[-1]]
            y.axes[j], merged = flow.split(merged, y.shape[j], rest, constant=(literal[j], last))
            size = rest
        y.axes[after[-1]] = merged


def runs(before: tuple[int, ...], after: tuple[int, ...]) -> Iterator[tuple[list[int], list[int]]]:
    """Pair up axes of two shapes of equal product into the shortest runs of equal product. Axes of size 1 are left out.

    >>> list(runs((2, 12, 1, 5), (2, 3, 4, 5)))
    [([0], [0]), ([1], [1, 2]), ([3], [3])]
    """
    i, j = 0, 0
    left = [k for k, n in enumerate(before) if n != 1]
    right = [k for k, n in enumerate(after) if n != 1]
    while i < len(left) and j < len(right):
        a, b = [left[i]], [right[j]]
        i, j = i + 1, j + 1
        while (p := math.prod(before[k] for k in a)) != (q := math.prod(after[k] for k in b)):
            if p < q:
                a.append(left[i])
                i += 1
            else:
                b.append(right[j])
                j += 1
        yield a, b
