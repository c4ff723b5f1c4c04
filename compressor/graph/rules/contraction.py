"""Matrix products: ``y[m, n] = sum_k a[m, k] * b[k, n]``. Labels of k are joined and read; m and n pass through."""

from __future__ import annotations

from torch import nn

from compressor.graph.labels.flow import Axis, Flow
from compressor.graph.recording.values import Node, Value
from compressor.graph.rules import rule


def _product(flow: Flow, node: Node, a: Value, b: Value, bias: Value | None) -> None:
    y = node.outputs[0]
    m, k, n = a.shape[-2], a.shape[-1], b.shape[-1]
    contracted = flow.join(a.axes[-1], b.axes[-2], k, k)
    if a.param is not None and b.param is None:
        flow.reads(contracted, (a, len(a.shape) - 1), (b, len(b.shape) - 2))
    else:
        flow.reads(contracted, (b, len(b.shape) - 2), (a, len(a.shape) - 1))
    y.axes[-2:] = [a.axes[-2], b.axes[-1]]
    sizes = [(a.axes[-2], m), (contracted, k), (b.axes[-1], n)]
    if len(y.shape) == 3:
        y.axes[0] = flow.join(a.axes[0], b.axes[0], a.shape[0], b.shape[0])
        sizes.append((y.axes[0], y.shape[0]))
    if bias is not None:
        y.axes = flow.broadcast([y, bias])
    linear = a.param is not None or b.param is not None
    flow.costs("linear" if linear else "matmul", 1.0, *sizes)


@rule("mm", "bmm")
def mm(flow: Flow, node: Node) -> None:
    _product(flow, node, node.args[0], node.args[1], None)


@rule("addmm", "baddbmm")
def addmm(flow: Flow, node: Node) -> None:
    _product(flow, node, node.args[1], node.args[2], node.args[0])


@rule("mv", "dot", "vdot", "addmv")
def vector(flow: Flow, node: Node) -> None:
    """``mv(A, x)``: contracts the last axis of A; ``dot(x, y)`` and ``vdot`` contract everything."""
    a, b = (node.args[1], node.args[2]) if node.op == "addmv" else (node.args[0], node.args[1])
    contracted = flow.join(a.axes[-1], b.axes[-1], a.shape[-1], b.shape[-1])
    flow.reads(contracted, (b, 0), (a, len(a.shape) - 1))
    if len(a.shape) == 2:
        node.outputs[0].axes = [a.axes[0]]
        if node.op == "addmv":
            node.outputs[0].axes = flow.broadcast([node.outputs[0], node.args[0]])
    sizes = [(a.axes[i], n) for i, n in enumerate(a.shape)]
    flow.costs("matmul", 1.0, *sizes)


@rule("addbmm")
def addbmm(flow: Flow, node: Node) -> None:
    """``y[m, n] = c[m, n] + sum_bk a[b, m, k] * b[b, k, n]``."""
    bias, a, b = node.args[:3]
    batch = flow.join(a.axes[0], b.axes[0], a.shape[0], b.shape[0])
    flow.reads(batch, (a, 0), (b, 0))
    contracted = flow.join(a.axes[2], b.axes[1], a.shape[2], b.shape[1])
    flow.reads(contracted, (a, 2), (b, 1))
    y = node.outputs[0]
    y.axes = [a.axes[1], b.axes[2]]
    y.axes = flow.broadcast([y, bias])
    flow.costs("matmul", 1.0, (batch, a.shape[0]), (contracted, a.shape[2]), *zip(y.axes, y.shape, strict=True))


@rule("addr")
def addr(flow: Flow, node: Node) -> None:
    """``y[i, j] = c[i, j] + a[i] * b[j]``."""
    bias, a, b = node.args[:3]
    y = node.outputs[0]
    y.axes = [a.axes[0], b.axes[0]]
    y.axes = flow.broadcast([y, bias])


@rule("_trilinear")
def trilinear(flow: Flow, node: Node) -> None:
    """A product of three tensors, each with new axes put in, summed over some: ``nn.Bilinear``."""
    *expansions, summed = node.args[3:7]
    rank = len(node.inputs[0].shape) + len(expansions[0])
    axes: list[Axis] = [None] * rank
    sizes = [1] * rank
    places: list[list[tuple[Value, int]]] = [[] for _ in range(rank)]
    for value, expanded in zip(node.inputs, expansions, strict=True):
        own = iter(range(len(value.shape)))
        for d in (d for d in range(rank) if d not in expanded):
            i = next(own)
            axes[d] = flow.join(axes[d], value.axes[i], sizes[d], value.shape[i])
            sizes[d] = max(sizes[d], value.shape[i])
            places[d].insert(0, (value, i))
    for d in summed:
        flow.reads(axes[d], *places[d])
    if isinstance(flow.owner(node), nn.Bilinear):
        for name, d in (("in1_features", summed[0]), ("in2_features", summed[1])):
            flow.mends(name, axes[d])
        flow.mends("out_features", node.inputs[1].axes[0])
    node.outputs[0].axes = [axis for d, axis in enumerate(axes) if d not in summed]
    flow.costs("linear", 1.0, *zip(axes, sizes, strict=True))
