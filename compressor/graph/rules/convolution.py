"""Convolutions of any dimension: ``y[o] = sum_c w[o, c] * x[c] + b[o]``, c over the channels of o's group.

With G groups, the input axis is ``(G, C/G)`` and the output axis ``(G, O/G)`` with the same G: a whole group can go,
and each group can lose the same positions inside. Depthwise (C = G): output ``g*m + j`` lives with input ``g``.
A transposed convolution has its weight as ``(C, O/G, ...)``.
"""

from __future__ import annotations

from typing import Any

from torch import nn

from compressor.graph.analysis.kernels import read_kernel
from compressor.graph.labels.flow import Axis, Flow
from compressor.graph.recording.values import Node, Value
from compressor.graph.rules import rule


@rule("convolution", "_convolution")
def convolution(flow: Flow, node: Node) -> None:
    x, w = node.inputs[0], node.inputs[1]
    bias: Value | None = node.args[2]
    transposed, groups = bool(node.args[6]), int(node.args[8])
    y = node.outputs[0]
    channel = len(x.shape) - (len(w.shape) - 2) - 1  # 0 for an unbatched input
    c_in, c_out = x.shape[channel], y.shape[channel]
    into = x.axes[channel]
    read_kernel(flow, node, w)
    w_in, w_out = (0, 1) if transposed else (1, 0)
    if groups == 1:
        # The reader's side of the weight carries labels of its own until they are joined with the input's.
        contracted = flow.adopt(w, w_in, into)
        out = w.axes[w_out]
        flow.reads(contracted, (w, w_in), (x, channel))
    elif transposed:
        rows, _ = groups_of(flow, into, groups, c_in)
        _bind_groups(flow, node, groups, rows)
        flow.join(w.axes[0], into, c_in, c_in)
        out = flow.product(rows, groups, w.axes[1], c_out // groups)
        flow.reads(into, (w, 0), (x, channel))
    else:
        rows, columns = groups_of(flow, into, groups, c_in)
        _bind_groups(flow, node, groups, rows)
        grouped(flow, w, rows, columns, groups)
        out = w.axes[0]
    if bias is not None:
        flow.adopt(bias, 0, out)
    y.axes[channel] = out
    if channel:
        y.axes[0] = x.axes[0]
    for i, d in enumerate(range(channel + 1, len(x.shape))):
        if w.shape[2 + i] == 1 and x.shape[d] == y.shape[d]:
            y.axes[d] = x.axes[d]  # position by position
        elif _slides_over_channels(flow, node, i, d):
            y.axes[d] = x.axes[d]
            flow.adjusts("side_by_side", x.axes[d], axis=d - len(x.shape))
        else:
            flow.fix(x.axes[d], "a convolution runs along it")
    outer = [(y.axes[0], y.shape[0])] if channel else []
    places = x if transposed else y
    spatial = [(places.axes[d], places.shape[d]) for d in range(channel + 1, len(x.shape))]
    flow.costs("conv", 1.0, *outer, *spatial, *zip(w.axes, w.shape, strict=True))


def _slides_over_channels(flow: Flow, node: Node, i: int, d: int) -> bool:
    """Whether one filter runs along a labelled axis and keeps its length, whatever that is: channel attention."""
    x, w, axis = node.inputs[0], node.inputs[1], node.inputs[0].axes[d]
    if flow.is_fixed(axis) or w.shape[:2] != (1, 1) or flow.call("conv1d", "conv2d", "conv3d") is None:
        return False
    others = [x.axes[e] for e in range(len(x.shape)) if e != d]
    stride, padding, dilation = (int(node.args[position][i]) for position in (3, 4, 5))
    keeps_length = stride == 1 and 2 * padding == dilation * (w.shape[2 + i] - 1)
    return keeps_length and not node.args[6] and all(flow.is_fixed(other) for other in others)


def groups_of(flow: Flow, into: Axis, groups: int, channels: int) -> tuple[Axis, Axis]:
    """The groups of a grouped convolution's input and the channels of each. Of a fixed input no group can go."""
    rows, columns = flow.split(into, groups, channels // groups)
    if rows is None and groups > 1:
        rows = flow.labels.fixed(groups, flow.reason("groups of channels that cannot change"))
    return rows, columns


def grouped(flow: Flow, w: Value, rows: Axis, columns: Axis, groups: int) -> None:
    """Tie a weight of ``(O, C/G, ...)`` to its input's groups: O is ``(G, O/G)``, so each loses the same outputs."""
    w_rows, _ = flow.split(w.axes[0], groups, w.shape[0] // groups)
    if w_rows is not None and rows is not None:
        flow.labels.unite(w_rows, rows)
    elif rows is not None:
        flow.fix(rows, "groups that cannot change")
    if w.shape[1] > 1:
        flow.join(columns, w.axes[1], w.shape[1], w.shape[1])
        flow.reads(w.axes[1], (w, 1))


def _bind_groups(flow: Flow, node: Node, groups: int, rows: Axis) -> None:
    """Without ``nn.Conv*`` to mend, ``groups`` must follow from the program's own sizes, else no group may go."""
    if isinstance(flow.owner(node), nn.modules.conv._ConvNd):
        flow.mends("groups", rows)
        return
    call = node.call
    size: Any = groups
    if call is not None and call.name.startswith("conv"):
        size = call.kwargs.get("groups", call.args[6] if len(call.args) > 6 else groups)
    flow.bind(size, rows, "groups")
