"""Convolutions of any dimension: ``y[o] = sum_c w[o, c] * x[c] + b[o]``, c over the channels of o's group.

With G groups, the input axis is ``(G, C/G)`` and the output axis ``(G, O/G)`` with the same G: a whole group can go,
and each group can lose the same positions inside. Depthwise (C = G): output ``g*m + j`` lives with input ``g``.
A transposed convolution has its weight as ``(C, O/G, ...)``.
"""

from __future__ import annotations

from typing import Any

from torch import nn

from compressor.graph.flow import Axis, Flow
from compressor.graph.kernels import read_kernel
from compressor.graph.record import Node, Value
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
    else:
        rows, columns = flow.split(into, groups, c_in // groups)
        if into is None:
            flow.fix(w.axes[0], "a grouped convolution of an input that cannot change")
        elif rows is None:
            rows = flow.constant(groups)
        _bind_groups(flow, node, groups, rows)
        if transposed:
            flow.join(w.axes[0], into, c_in, c_in)
            out = flow.product(rows, groups, w.axes[1], c_out // groups)
        else:
            # w.axes[0] is (G, O/G) row-major; tie its rows to the input's groups.
            w_rows, _ = flow.split(w.axes[0], groups, c_out // groups)
            if w_rows is not None and rows is not None:
                flow.labels.unite(w_rows, rows)
            elif rows is not None:
                flow.fix(rows, "groups that cannot change")
            if c_in // groups > 1:
                flow.join(columns, w.axes[1], c_in // groups, c_in // groups)
            out = w.axes[0]
        if transposed:
            flow.reads(into, (w, 0), (x, channel))
        elif c_in // groups > 1:
            flow.reads(w.axes[1], (w, 1))
    if bias is not None:
        flow.adopt(bias, 0, out)
    y.axes[channel] = out
    if channel:
        y.axes[0] = x.axes[0]
    for i, d in enumerate(range(channel + 1, len(x.shape))):
        if w.shape[2 + i] == 1 and x.shape[d] == y.shape[d]:
            y.axes[d] = x.axes[d]  # position by position
        else:
            flow.fix(x.axes[d], "a convolution runs along it")
    outer = [(y.axes[0], y.shape[0])] if channel else []
    places = x if transposed else y
    spatial = [(places.axes[d], places.shape[d]) for d in range(channel + 1, len(x.shape))]
    flow.costs("conv", 1.0, *outer, *spatial, *zip(w.axes, w.shape, strict=True))


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
