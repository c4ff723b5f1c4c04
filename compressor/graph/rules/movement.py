"""Operators that move whole axes or whole tensors: permute, expand, cat, stack, pad, roll, repeat."""

from __future__ import annotations

from typing import Any

import numpy as np

from compressor.graph.labels.flow import Axis, Flow
from compressor.graph.recording.values import Node, Value
from compressor.graph.rules import rule


def moved(x: Value, y: Value, order: list[int | None]) -> None:
    """``y`` has the axes of ``x`` in this order, a new one where it says ``None``; it is what x was of a parameter."""
    y.axes = [None if d is None else x.axes[d] for d in order]
    if x.param is not None:
        y.param, y.param_axes = x.param, tuple(None if d is None else x.param_axes[d] for d in order)


@rule("permute", "transpose", "t", "numpy_T", "movedim", "swapaxes")
def permute(flow: Flow, node: Node) -> None:
    x, y = node.inputs[0], node.outputs[0]
    order: list[int | None] = list(range(len(x.shape)))
    if node.op == "t":
        order.reverse()
    elif node.op == "transpose":
        a, b = int(node.args[1]), int(node.args[2])
        order[a], order[b] = order[b], order[a]
    else:
        order = [int(d) % len(order) for d in node.args[1]]
    moved(x, y, order)


@rule("unsqueeze")
def unsqueeze(flow: Flow, node: Node) -> None:
    x, y = node.inputs[0], node.outputs[0]
    dim = int(node.args[1]) % len(y.shape)
    moved(x, y, [*range(dim), None, *range(dim, len(x.shape))])


@rule("squeeze")
def squeeze(flow: Flow, node: Node) -> None:
    x, y = node.inputs[0], node.outputs[0]
    rank = len(x.shape)
    dims = node.args[1] if len(node.args) > 1 else list(range(rank))
    gone = {d % rank for d in ([dims] if isinstance(dims, int) else dims)}
    moved(x, y, [d for d in range(rank) if not (d in gone and x.shape[d] == 1)])


@rule("expand", "expand_as", "broadcast_to")
def expand(flow: Flow, node: Node) -> None:
    """An axis of one index is repeated to the size asked for; a labelled one keeps its labels."""
    x, y = node.inputs[0], node.outputs[0]
    offset = len(y.shape) - len(x.shape)
    call = node.call
    sizes: list[Any] = []
    if call is not None and call.name in ("expand", "broadcast_to"):
        given = call.args[1:]
        sizes = list(given[0]) if len(given) == 1 and not isinstance(given[0], int) else list(given)
    for i, n in enumerate(y.shape):
        size = sizes[i] if len(sizes) == len(y.shape) else -1
        before = x.shape[i - offset] if i >= offset else 1
        if before == n:
            y.axes[i] = x.axes[i - offset] if i >= offset else None
            flow.bind(size, y.axes[i])
        else:
            source = flow.labels_of(size)
            y.axes[i] = source if source is not None and len(source) == n else None
    if call is not None and not sizes:  # inside another function: as large as one of its arguments
        for _, like in call.values:
            shift = len(y.shape) - len(like.shape)
            for i, n in enumerate(like.shape):
                before = x.shape[i + shift - offset] if i + shift >= offset else 1
                if shift >= 0 and before == 1 and y.shape[i + shift] == n > 1:
                    y.axes[i + shift] = like.axes[i]


@rule("cat", "concat", "concatenate")
def cat(flow: Flow, node: Node) -> None:
    """``cat`` along d: label vectors are laid end to end; the other axes are joined."""
    y = node.outputs[0]
    parts = [v for v in node.inputs if len(v.shape) == len(y.shape)]  # an empty 1-d tensor is legal and means nothing
    dim = node.args[1] if len(node.args) > 1 else node.kwargs.get("dim", 0)
    dim = int(dim) % len(y.shape)
    axes: list[Axis] = list(parts[0].axes)
    for part in parts[1:]:
        for d in range(len(axes)):
            if d != dim:
                axes[d] = flow.join(axes[d], part.axes[d], y.shape[d], y.shape[d])
    axes[dim] = concatenated(flow, [(part.axes[dim], part.shape[dim]) for part in parts])
    y.axes = axes


def concatenated(flow: Flow, parts: list[tuple[Axis, int]]) -> Axis:
    """Labels laid end to end; parts without labels become constants. ``None`` if no part has labels."""
    if all(axis is None for axis, _ in parts):
        return None
    return np.concatenate([axis if axis is not None else flow.constant(n) for axis, n in parts])


@rule("stack")
def stack(flow: Flow, node: Node) -> None:
    y = node.outputs[0]
    dim = node.args[1] if len(node.args) > 1 else node.kwargs.get("dim", 0)
    axes = flow.broadcast(node.inputs)
    dim = int(dim) % len(y.shape)
    y.axes = [*axes[:dim], None, *axes[dim:]]


@rule("roll", "flip")
def roll(flow: Flow, node: Node) -> None:
    """Moves positions along some axes: those cannot change, the others pass."""
    x, y = node.inputs[0], node.outputs[0]
    dims = node.args[2] if node.op == "roll" and len(node.args) > 2 else node.args[1] if node.op == "flip" else None
    moved = range(len(x.shape)) if not dims else [int(d) for d in ([dims] if isinstance(dims, int) else dims)]
    y.axes = list(x.axes)
    for d in moved:
        if node.op == "flip" and y.axes[d] is not None:
            y.axes[d] = y.axes[d][::-1].copy()  # type: ignore[index]
        else:
            flow.fix(y.axes[d], "roll along it")


@rule("repeat", "tile")
def repeat(flow: Flow, node: Node) -> None:
    x, y = node.inputs[0], node.outputs[0]
    offset = len(y.shape) - len(x.shape)
    times_given = _repeats(node, len(y.shape))
    for i, size in enumerate(times_given):  # an axis of one index, as often as another axis is long
        labels = flow.labels_of(size)
        if (i < offset or x.shape[i - offset] == 1) and labels is not None and len(labels) == y.shape[i]:
            y.axes[i] = labels
    for i, n in enumerate(x.shape):
        if y.axes[i + offset] is not None:
            continue
        axis = x.axes[i]
        times = y.shape[i + offset] // n if n else 1
        y.axes[i + offset] = axis if axis is None or times == 1 else np.tile(axis, times)


def _repeats(node: Node, rank: int) -> list[Any]:
    """How often each axis is repeated, as the program wrote it; nothing if it did not."""
    if node.call is None or node.call.name not in ("repeat", "tile"):
        return []
    given: Any = node.call.args[1:] or tuple(node.call.kwargs.values())
    given = given[0] if len(given) == 1 and not isinstance(given[0], int) else given
    return list(given) if len(given) == rank else []


@rule("pad")
def pad(flow: Flow, node: Node) -> None:
    """Padding, listed from the last axis: ``before`` and ``after`` new indices around the old ones.

    Constant padding of a labelled axis makes new labels, whose number the program must be able to follow: an attribute
    or a size. Other modes repeat indices, which then must stay.
    """
    x, y = node.inputs[0], node.outputs[0]
    amounts: Any = node.args[1] if len(node.args) > 1 else node.kwargs["pad"]
    mode = node.args[2] if len(node.args) > 2 else node.kwargs.get("mode", "constant")
    y.axes = list(x.axes)
    for k in range(len(amounts) // 2):
        d = len(x.shape) - 1 - k
        axis = x.axes[d]
        before, after = amounts[2 * k], amounts[2 * k + 1]
        if axis is None or (int(before) == 0 and int(after) == 0):
            continue
        if int(before) < 0 or int(after) < 0 or mode != "constant":
            flow.fix(axis, "padding that repeats or removes indices")
            y.axes[d] = None
            continue
        pieces: list[Axis] = []
        for amount in (before, after):
            new = flow.labels.fresh(int(amount))
            if int(amount):
                flow.bind(amount, new, "padding")
            pieces.append(new)
        y.axes[d] = np.concatenate([pieces[0], axis, pieces[1]])


@rule("constant_pad_nd")
def constant_pad(flow: Flow, node: Node) -> None:
    """Padding inside another function: padded axes must stay."""
    x, y = node.inputs[0], node.outputs[0]
    y.axes = list(x.axes)
    for d, n in enumerate(y.shape):
        if x.shape[d] != n:
            flow.fix(x.axes[d], "padding inside another function")
            y.axes[d] = None


@rule("pixel_shuffle", "pixel_unshuffle", "channel_shuffle", "native_channel_shuffle")
def shuffle(flow: Flow, node: Node) -> None:
    """``pixel_shuffle`` takes channels as ``(C, r * r)`` and keeps the first factor, ``pixel_unshuffle`` undoes that;
    ``channel_shuffle`` turns ``(G, C/G)`` into ``(C/G, G)`` with G a constant."""
    x, y = node.inputs[0], node.outputs[0]
    factor = int(node.args[1])
    channel = 1 if node.op.endswith("channel_shuffle") else len(x.shape) - 3
    axis, n = x.axes[channel], x.shape[channel]
    y.axes = [*x.axes[:channel], None, *[None] * (len(x.shape) - channel - 1)]
    if node.op == "pixel_unshuffle":
        y.axes[channel] = flow.product(axis, n, None, factor**2)
    elif node.op == "pixel_shuffle":
        y.axes[channel] = flow.split(axis, n // factor**2, factor**2, constant=(False, True))[0]
    else:
        _, columns = flow.split(axis, factor, n // factor, constant=(True, False))
        y.axes[channel] = None if axis is None else flow.product(columns, n // factor, None, factor)
    for spatial in x.axes[channel + 1 :]:
        flow.fix(spatial, f"{node.op} over it")


@rule("diagonal")
def diagonal(flow: Flow, node: Node) -> None:
    """``y[..., i] = x[..., i, i]``: the index of both axes is one; off the main diagonal they stay."""
    x, y = node.inputs[0], node.outputs[0]
    offset, a, b = _diagonal(node, len(x.shape))
    axis: Axis = None
    if offset == 0 and x.shape[a] == x.shape[b]:
        axis = flow.join(x.axes[a], x.axes[b], x.shape[a], x.shape[b])
    else:
        flow.fix(x.axes[a], "a diagonal of it")
        flow.fix(x.axes[b], "a diagonal of it")
    y.axes = [*(other for d, other in enumerate(x.axes) if d not in (a, b)), axis]


@rule("diag_embed")
def diag_embed(flow: Flow, node: Node) -> None:
    """``y[..., i, i] = x[..., i]``, zero elsewhere."""
    x, y = node.inputs[0], node.outputs[0]
    offset, a, b = _diagonal(node, len(y.shape))
    if offset:
        flow.fix(x.axes[-1], "laid out beside the main diagonal")
    outer = iter(x.axes[:-1])
    y.axes = [(x.axes[-1] if not offset else None) if d in (a, b) else next(outer) for d in range(len(y.shape))]


def _diagonal(node: Node, rank: int) -> tuple[int, int, int]:
    return int(node.argument("offset")), int(node.argument("dim1")) % rank, int(node.argument("dim2")) % rank


@rule("select_scatter", "diagonal_scatter")
def scatter_part(flow: Flow, node: Node) -> None:
    """Part of ``x`` replaced by another tensor: what says which part stays, the other axes are joined."""
    x, part, y = node.inputs[0], node.inputs[1], node.outputs[0]
    rank = len(x.shape)
    gone = {int(node.argument("dim")) % rank} if node.op == "select_scatter" else set(_diagonal(node, rank)[1:])
    for d in gone:
        flow.fix(x.axes[d], f"{node.op} along it")
    kept = [d for d in range(rank) if d not in gone]
    y.axes = list(x.axes)
    for d, axis in zip(kept, part.axes, strict=False):
        y.axes[d] = flow.join(x.axes[d], axis, x.shape[d], x.shape[d])
    for axis in part.axes[len(kept) :]:
        flow.fix(axis, f"{node.op} along it")
