"""Reductions. Over axes that never change nothing is to be done. Over labelled axes: a sum reads them (what is removed
must be zero), a mean also divides by their kept number; others that look across channels are adjusted or fixed.
"""

from __future__ import annotations

from compressor.graph.labels.flow import Flow
from compressor.graph.recording.values import Node
from compressor.graph.rules import rule

_ADJUSTED = {
    "sum", "mean", "var", "std", "var_mean", "std_mean", "amax", "amin", "max", "min", "norm", "linalg_vector_norm",
    "normalize", "logsumexp",
}  # fmt: skip

_SPREADS = {"var", "std", "var_mean", "std_mean"}
_PRODUCTS = ("linalg_vecdot", "vecdot", "inner", "tensordot")


@rule(
    "mean",
    "sum",
    "amax",
    "amin",
    "max",
    "min",
    "argmax",
    "argmin",
    "var",
    "std",
    "var_mean",
    "std_mean",
    "prod",
    "logsumexp",
    "linalg_vector_norm",
    "norm",
    "any",
    "all",
    "median",
)
def reduce(flow: Flow, node: Node) -> None:
    x = node.inputs[0]
    rank = len(x.shape)
    if len(node.inputs) == 2 and node.op in ("max", "min"):
        axes = flow.broadcast(node.inputs)
        node.outputs[0].axes = axes
        return
    position = {"linalg_vector_norm": 2, "norm": 2}.get(node.op, 1)
    dims = node.args[position] if len(node.args) > position else node.kwargs.get("dim")
    if dims is None:
        reduced = set(range(rank))
    else:
        reduced = {d % rank for d in ([dims] if isinstance(dims, int) else dims)} or set(range(rank))
    touched = [d for d in sorted(reduced) if x.axes[d] is not None and not flow.is_fixed(x.axes[d])]
    if touched:
        _across(flow, node, touched, reduced)
    kept = [axis for d, axis in enumerate(x.axes) if d not in reduced]
    for output in node.outputs:
        if len(output.shape) == rank:
            output.axes = [None if d in reduced else axis for d, axis in enumerate(x.axes)]
        else:
            output.axes = list(kept)


def _across(flow: Flow, node: Node, touched: list[int], reduced: set[int]) -> None:
    """Reduction over labelled axes, handled where the program's call is one we can act on."""
    x = node.inputs[0]
    call = node.call
    if node.op == "sum" and flow.call(*_PRODUCTS) is not None:
        for d in touched:  # the call is a sum of products, whose operands can be masked
            flow.reads(x.axes[d], (x, d))
        return
    if call is None or call.name not in _ADJUSTED or not call.values or call.values[0][1].shape != x.shape:
        for d in touched:
            flow.fix(x.axes[d], f"{node.op} across channels")
        return
    if call.name in _SPREADS and len(reduced) > 1:
        for d in touched:
            flow.fix(x.axes[d], f"{node.op} across several axes")
        return
    for d in touched:
        flow.adjusts("reduce", x.axes[d], axis=d - len(x.shape), operator=call.name)


@rule("_softmax", "softmax", "_log_softmax", "log_softmax", "_safe_softmax")
def softmax(flow: Flow, node: Node) -> None:
    x = node.inputs[0]
    dim = int(node.args[1]) % len(x.shape)
    axis = x.axes[dim]
    node.outputs[0].axes = list(x.axes)
    if axis is None or flow.is_fixed(axis):
        return
    call = flow.call("softmax", "log_softmax", "softmin")
    if call is None or not call.values or call.values[0][1].shape != x.shape:
        flow.fix(axis, "softmax across channels")
        return
    flow.adjusts(call.name, axis, axis=dim - len(x.shape))
