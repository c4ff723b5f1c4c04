"""Operators that take part of an axis: slice, split, chunk, select, unbind, index, gather, embedding."""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
from torch import nn

from compressor.graph.labels.flow import Axis, Flow
from compressor.graph.recording.dims import Dim
from compressor.graph.recording.values import Call, Node, Value
from compressor.graph.rules import rule
from compressor.graph.rules.along import act_along, along
from compressor.graph.rules.movement import moved
from compressor.graph.rules.permutation import permuted

_BOUNDS_SPELT_OUT = {"__getitem__", "__setitem__", "narrow", "slice"}


@rule("slice", "narrow")
def take_slice(flow: Flow, node: Node) -> None:
    """``x[start:end]``: labels are sliced. A bound inside a labelled axis must follow what is kept before it."""
    x, y = node.inputs[0], node.outputs[0]
    rank = len(x.shape)
    dim = int(node.args[1]) % rank if len(node.args) > 1 else 0
    n = x.shape[dim]
    start, end, step = _bounds(node, n)
    y.axes = list(x.axes)
    axis = x.axes[dim]
    given = _given_bounds(node.call, dim, rank) if node.call is not None else None
    whole = (start, end, step) == (0, n, 1)
    if x.param is not None:
        y.param, y.param_axes = x.param, tuple(p if whole or d != dim else None for d, p in enumerate(x.param_axes))
        if whole and given is not None and isinstance(given[1], Dim) and flow.labels_of(given[1]) is None:
            flow.fix(axis, "a table as long as the inputs")  # which may be shorter another time
    if axis is None or whole:
        return
    if step != 1:
        if n % step == 0 and start < step and end > n - step + start:
            flow.split(axis, n // step, step, constant=(False, True))  # one of every ``step`` that live or die together
        else:
            flow.fix(axis, "slice with a step")
        y.axes[dim] = axis[start:end:step].copy()
        return
    y.axes[dim] = axis[start:end:step].copy()
    if flow.is_fixed(axis):
        return
    if node.call is not None and node.call.name == "tensor_split":
        _in_sections(flow, node.call, axis)
        return
    if node.call is not None and node.call.name not in _BOUNDS_SPELT_OUT:
        flow.fix(axis, f"sliced inside {node.call.name}")
        return
    for position, size in ((start, given[0] if given else start), (end, given[1] if given else end)):
        if 0 < position < n:
            if isinstance(size, int) and int(size) == position:
                flow.bind(size, axis[:position], "slice bound")
            else:
                flow.fix(axis, "slice bound that is not understood")


def _in_sections(flow: Flow, call: Call, axis: Axis) -> None:
    """``tensor_split`` into equally many, which are tied, or at the positions given."""
    given = call.args[1] if len(call.args) > 1 else next(iter(call.kwargs.values()))
    if axis is None:
        return
    if not isinstance(given, int):
        for position in given:
            flow.bind(position, axis[: int(position)], "slice bound")
    elif len(axis) % given:
        flow.fix(axis, "split into uneven sections")
    else:
        flow.split(axis, int(given), len(axis) // given, constant=(True, False))


def _bounds(node: Node, n: int) -> tuple[int, int, int]:
    if node.op == "narrow":
        start = int(node.args[2]) % n
        return start, start + int(node.args[3]), 1
    args = [node.args[i] if len(node.args) > i else None for i in (2, 3, 4)]
    return slice(*(None if a is None or a == sys.maxsize else int(a) for a in args)).indices(n)


def _given_bounds(call: Call, dim: int, rank: int) -> tuple[Any, Any] | None:
    """Start and end as the program wrote them in ``x[..., a:b, ...]``, negative ones left out."""
    if call.name == "narrow" and len(call.args) == 4 and all(isinstance(n, int) for n in call.args[1:]):
        _, along, start, length = call.args
        return (start, start + length) if int(along) % rank == dim else None
    if call.name not in ("__getitem__", "__setitem__"):
        return None
    index = call.args[1] if isinstance(call.args[1], tuple) else (call.args[1],)
    if any(not (item is None or item is Ellipsis or isinstance(item, (slice, int))) for item in index):
        return None
    sized = [item for item in index if item is not None and item is not Ellipsis]
    position = 0
    axis = 0
    for item in index:
        if item is None:
            continue
        if item is Ellipsis:
            axis += rank + (sum(isinstance(i, int) for i in index[:position])) - len(sized)
            continue
        if isinstance(item, slice):
            if axis == dim:
                return (item.start if item.start is not None else 0), item.stop
            axis += 1
        position += 1
    return None


@rule("split", "split_with_sizes", "chunk", "unsafe_split", "unsafe_chunk")
def split(flow: Flow, node: Node) -> None:
    """Consecutive pieces. Equal pieces by count tie their positions; sizes that are spelt out are bound one by one."""
    x = node.inputs[0]
    dim = node.args[2] if len(node.args) > 2 else node.kwargs.get("dim", 0)
    dim = int(dim) % len(x.shape)
    axis = x.axes[dim]
    call = node.call
    count = len(node.outputs)
    pieces: list[Axis] = []
    start = 0
    for output in node.outputs:
        output.axes = list(x.axes)
        if axis is not None:
            output.axes[dim] = axis[start : start + output.shape[dim]].copy()
        pieces.append(output.axes[dim])
        start += output.shape[dim]
    if axis is None or flow.is_fixed(axis) or count == 1:
        return
    sizes: Any = None
    if call is not None and call.name in ("split", "split_with_sizes", "unsafe_split"):
        sizes = call.args[1] if len(call.args) > 1 else next(iter(call.kwargs.values()))
        if isinstance(sizes, int):
            sizes = [sizes] * count
    by_count = call is not None and call.name in ("chunk", "unsafe_chunk")
    if by_count or (sizes is not None and len({id(s) for s in sizes}) == 1 and count > 1):
        columns = pieces[0]
        if columns is not None and (short := len(axis) % len(columns)):
            # The last piece is smaller: keep it no larger than the others, and not empty.
            flow.labels.unite(columns[:short], pieces.pop())  # type: ignore[arg-type]
            flow.fix(columns[:1], "the first of uneven pieces")
            if by_count:  # the program divides and rounds up: the difference in size has to stay as it is
                flow.fix(columns[short:], "the difference of uneven pieces")
        for piece in pieces[1:]:
            flow.labels.unite(columns, piece)  # type: ignore[arg-type]
        if sizes is not None:
            flow.bind(sizes[0], columns, "split size")
    elif sizes is not None and len(sizes) == count:
        for size, piece in zip(sizes, pieces, strict=True):
            flow.bind(size, piece, "split size")
    else:
        flow.fix(axis, "split into uneven pieces")


@rule("glu")
def glu(flow: Flow, node: Node) -> None:
    """``a * sigmoid(b)`` where ``a`` and ``b`` are the halves of an axis: their positions are tied."""
    x, y = node.inputs[0], node.outputs[0]
    dim = (int(node.args[1]) if len(node.args) > 1 else -1) % len(x.shape)
    y.axes = list(x.axes)
    axis = x.axes[dim]
    if axis is not None:
        y.axes[dim] = flow.join(
            axis[: len(axis) // 2].copy(), axis[len(axis) // 2 :].copy(), y.shape[dim], y.shape[dim]
        )


@rule("select", "unbind")
def select(flow: Flow, node: Node) -> None:
    """One index of an axis, or each in turn: positions must stay."""
    x = node.inputs[0]
    dim = int(node.args[1]) % len(x.shape) if len(node.args) > 1 else 0
    flow.fix(x.axes[dim], f"{node.op} of single positions")
    for output in node.outputs:
        moved(x, output, [d for d in range(len(x.shape)) if d != dim])


@rule("index", "_unsafe_index")
def index(flow: Flow, node: Node) -> None:
    """``x[i, :, j]`` with index tensors: indexed axes must stay, the others pass."""
    x, y = node.inputs[0], node.outputs[0]
    indexed = [(d, i) for d, i in enumerate(node.args[1]) if i is not None]
    if len(indexed) == 1 and (order := permuted(flow, node, indexed[0][1], x.axes[indexed[0][0]])) is not None:
        y.axes = [order if d == indexed[0][0] else axis for d, axis in enumerate(x.axes)]
        return
    y.axes, _ = _taken(flow, x, node.args[1])


def _taken(flow: Flow, x: Value, indices: list[Value | None]) -> tuple[list[Axis], list[int | None]]:
    """Axes and sizes of ``x[indices]``, the sizes of those that the index makes ``None``. A mask takes several axes."""
    axes: list[Axis] = []
    sizes: list[int | None] = []
    firsts: list[int] = []
    used: list[Value] = []
    d = 0
    for i in [*indices, *[None] * len(x.shape)]:
        if d >= len(x.shape):
            break
        if i is None:
            axes.append(x.axes[d])
            sizes.append(x.shape[d])
            d += 1
            continue
        width = len(i.shape) if i.is_mask else 1
        for axis in x.axes[d : d + width]:
            flow.fix(axis, "indexed by a tensor (an order of all follows where a buffer or list of a module says it)")
        flow.keep_positions(i, "used as an index")
        used.append(i)
        firsts.append(len(axes))
        d += width
    first = firsts[0] if firsts and firsts == [firsts[0]] * len(firsts) else 0
    looked_up = [None] if any(i.is_mask for i in used) else flow.broadcast(used)
    places: list[int | None] = [None] * len(looked_up)
    return [*axes[:first], *looked_up, *axes[first:]], [*sizes[:first], *places, *sizes[first:]]


@rule("index_select")
def index_select(flow: Flow, node: Node) -> None:
    """``x[..., i, ...]``: where ``i`` is a buffer of the model, what of it is kept decides what is taken."""
    x, i, y = node.inputs[0], node.inputs[1], node.outputs[0]
    if i.param is None or len(i.shape) != 1:
        along(flow, node)
        return
    dim = int(node.args[1]) % len(x.shape)
    order = permuted(flow, node, i, x.axes[dim])
    if order is None:
        flow.fix(x.axes[dim], "indexed by a tensor")
        order = i.axes[0]
    y.axes = [order if d == dim else axis for d, axis in enumerate(x.axes)]


@rule("index_add")
def index_add(flow: Flow, node: Node) -> None:
    """``x[..., i, ...] += y``: where ``i`` is a buffer, its entries and y's live together; y is zero where not kept."""
    x, i, added = node.inputs[0], node.inputs[1], node.inputs[2]
    if i.param is None or len(i.shape) != 1:
        along(flow, node)
        return
    dim = int(node.args[1]) % len(x.shape)
    flow.fix(x.axes[dim], "indexed by a tensor")
    labels = flow.adopt(i, 0, added.axes[dim])
    axes = [flow.join(a, b, n, n) if d != dim else a
            for d, (a, b, n) in enumerate(zip(x.axes, added.axes, x.shape, strict=True))]  # fmt: skip
    node.outputs[0].axes = axes
    # A weight that y was multiplied by can be zero; y itself only at the call.
    scales = added.producer.inputs if added.producer is not None and added.producer.op == "mul" else []
    aligned = [(s, d) for s in scales if s.param is not None for d in [dim - len(x.shape) + len(s.shape)] if d >= 0]
    flow.reads(labels, *[(s, d) for s, d in aligned if s.shape[d] == added.shape[dim]], (added, dim))


@rule("index_put", "_index_put_impl")
def index_put(flow: Flow, node: Node) -> None:
    """``x[i, :, j] = v``: indexed axes stay, ``v`` meets what the index takes of the others."""
    x, y = node.inputs[0], node.outputs[0]
    written = node.args[2]
    y.axes = list(x.axes)
    if [i for i in node.args[1] if isinstance(i, Value) and i.is_mask and i.shape == x.shape] and written.shape == ():
        y.axes = flow.broadcast([x, node.args[1][0]])  # one number wherever the mask says so
        return
    taken, shape = _taken(flow, x, node.args[1])
    offset = len(shape) - len(written.shape)
    for d, n in enumerate(written.shape):
        if d + offset < 0 or shape[d + offset] is None:  # a place of the index
            flow.fix(written.axes[d], "written by index")
        else:
            flow.join(taken[d + offset], written.axes[d], shape[d + offset] or n, n)


@rule("embedding")
def embedding(flow: Flow, node: Node) -> None:
    """``w[i]``: rows are tokens and stay, columns pass to the last axis."""
    w, i, y = node.inputs[0], node.inputs[1], node.outputs[0]
    flow.fix(w.axes[0], "rows of an embedding")
    flow.keep_positions(i, "looked up in an embedding")
    y.axes = [*i.axes, w.axes[1]]


@rule("im2col", "unfold")
def unfold(flow: Flow, node: Node) -> None:
    """``im2col``: (B, C, H, W) to (B, C*k*k, L), channel outermost; ``unfold`` adds a trailing axis of windows."""
    x, y = node.inputs[0], node.outputs[0]
    if node.op == "unfold":
        dim = int(node.args[1]) % len(x.shape)
        flow.fix(x.axes[dim], "windows along it")
        y.axes = [None if d == dim else axis for d, axis in enumerate([*x.axes, None])]
        return
    for spatial in x.axes[-2:]:
        flow.fix(spatial, "windows along it")
    channels = x.axes[-3]
    y.axes[-2] = None if channels is None else np.repeat(channels, y.shape[-2] // len(channels))


@rule("col2im")
def fold(flow: Flow, node: Node) -> None:
    """(B, C*k*k, L) to (B, C, H, W): ``im2col`` undone, overlaps added."""
    x, y = node.inputs[0], node.outputs[0]
    channels = y.shape[-3]
    flow.fix(x.axes[-1], "positions of windows")
    axis, _ = flow.split(x.axes[-2], channels, x.shape[-2] // channels, constant=(False, True))
    y.axes = [*x.axes[:-2], axis, None, None]


@rule("_embedding_bag", "_embedding_bag_forward_only")
def embedding_bag(flow: Flow, node: Node) -> None:
    """Sums, means or maxima of rows ``w[i]``: rows are tokens and stay, columns pass."""
    w, y = node.inputs[0], node.outputs[0]
    flow.fix(w.axes[0], "rows of an embedding")
    for other in node.inputs[1:]:
        flow.keep_positions(other, "looked up in an embedding")
    y.axes = [None, w.axes[1]]
    if isinstance(flow.owner(node), nn.EmbeddingBag):
        flow.mends("embedding_dim", w.axes[1])


@rule("bucketize", "isin")
def looked_up(flow: Flow, node: Node) -> None:
    """Every element compared with all of another tensor, which stays."""
    x = node.inputs[0]
    for table in node.inputs[1:]:
        flow.fix_value(table, "a table of values")
    node.outputs[0].axes = list(x.axes)


@rule("searchsorted")
def searchsorted(flow: Flow, node: Node) -> None:
    """Positions in a sorted row: one for all, or one row for every index of the leading axes."""
    if len(node.inputs[0].shape) > 1 or len(node.inputs) > 2:
        act_along(flow, node, {-1})
        return
    flow.fix_value(node.inputs[0], "a table of values")
    for output in node.outputs:
        output.axes = list(node.inputs[-1].axes) if len(node.inputs) > 1 else []
