"""Matrix products: ``y[m, n] = sum_k a[m, k] * b[k, n]``. Labels of k are joined and read; m and n pass through."""

from __future__ import annotations

from compressor.graph.flow import Flow
from compressor.graph.record import Node, Value
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


@rule("mv", "dot", "addmv")
def vector(flow: Flow, node: Node) -> None:
    """``mv(A, x)``: contracts the last axis of A; ``dot(x, y)`` contracts everything."""
    a, b = (node.args[1], node.args[2]) if node.op == "addmv" else (node.args[0], node.args[1])
    contracted = flow.join(a.axes[-1], b.axes[-1], a.shape[-1], b.shape[-1])
    flow.reads(contracted, (b, 0), (a, len(a.shape) - 1))
    if len(a.shape) == 2:
        node.outputs[0].axes = [a.axes[0]]
        if node.op == "addmv":
            node.outputs[0].axes = flow.broadcast([node.outputs[0], node.args[0]])
    sizes = [(a.axes[i], n) for i, n in enumerate(a.shape)]
    flow.costs("matmul", 1.0, *sizes)
