"""Distances and similarities of vectors: what is removed must be zero in both operands."""

from __future__ import annotations

from compressor.graph.labels.flow import Axis, Flow
from compressor.graph.recording.values import Node, Value
from compressor.graph.rules import rule


@rule("_cdist_forward", "_euclidean_dist")
def cdist(flow: Flow, node: Node) -> None:
    """``y[i, j] = |a[i] - b[j]|`` over the last axis of both."""
    a, b = node.inputs[:2]
    y = node.outputs[0]
    rank, n = len(y.shape), a.shape[-1]
    across = flow.join(a.axes[-1], b.axes[-1], n, n)
    call = flow.call("cdist")
    if not flow.is_fixed(across):
        if call is None or len(call.values) < 2 or any(v.shape[-1] != n for _, v in call.values[:2]):
            flow.fix(across, "distances over it")
        else:
            flow.adjusts("operands", across, operands=[(position, -1) for position, _ in call.values[:2]])
    outer: list[Axis] = [None] * (rank - 2)
    for d in range(-rank, -2):
        met = [(value.axes[d], value.shape[d]) for value in (a, b) if len(value.shape) >= -d]
        outer[d + 2] = flow.join(met[0][0], met[-1][0], met[0][1], met[-1][1])
    y.axes = [*outer, a.axes[-2], b.axes[-2]]
    flow.costs("matmul", 1.0, *zip(y.axes, y.shape, strict=True), (across, n))


@rule("cosine_similarity", "pairwise_distance")
def along_one_axis(flow: Flow, node: Node) -> None:
    """The cosine, or the norm of the difference, of the vectors along one axis of two tensors that broadcast."""
    call = node.call
    if call is None or len(node.inputs) != 2:
        raise ValueError("two tensors expected")
    axes = flow.broadcast(node.inputs)
    shape = [max(sizes) for sizes in zip(*(_padded(v, len(axes)) for v in node.inputs), strict=True)]
    dim = -1
    if node.op == "cosine_similarity":
        dim = int(node.args[2] if len(node.args) > 2 else node.kwargs.get("dim", 1))
    dim %= len(axes)
    across = axes[dim]
    if not flow.is_fixed(across):
        if all(len(v.shape) == len(axes) and v.shape[dim] == shape[dim] for _, v in call.values):
            operands = [(position, dim - len(axes)) for position, _ in call.values]
            flow.adjusts("operands" if node.op == "cosine_similarity" else node.op, across, operands=operands)
        else:
            flow.fix(across, f"{node.op} of vectors of which one is a number")
    y = node.outputs[0]
    y.axes = [axis if d != dim else None for d, axis in enumerate(axes) if d != dim or len(y.shape) == len(axes)]


def _padded(value: Value, rank: int) -> list[int]:
    return [1] * (rank - len(value.shape)) + list(value.shape)
