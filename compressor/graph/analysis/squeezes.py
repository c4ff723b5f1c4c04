"""Squeeze-and-excite: ``y = x * s(x)``, a factor that a branch computes from few numbers of ``x`` (Hu et al., 2018).

Such a branch can go like a residual one; what is left is ``x``. Its gate g acts as ``y = x * (1 - g + g s)``: at 1
the network is as it was, and at 0 the product is the stream. What counts as one:

- an operand of the product is the stream, the other exists for the product alone and reads the stream;
- on the way to the factor positions are averaged, or the factor is smaller than the stream and broadcast to it. So
  gates of the full shape, such as those of gated linear units, are none.
"""

from __future__ import annotations

import math

from compressor.graph.analysis.dataflow import Dataflow
from compressor.graph.analysis.module_calls import Branch
from compressor.graph.graph import Site
from compressor.graph.recording.values import Node, Value

_PRODUCTS = {"mul", "mul_", "__mul__", "__rmul__", "__imul__", "multiply", "multiply_"}
_OVER_POSITIONS = {"mean", "sum", "amax", "amin", "max", "adaptive_avg_pool1d", "adaptive_avg_pool2d",
                   "_adaptive_avg_pool2d", "adaptive_max_pool2d"}  # fmt: skip
_LAYOUT = {"expand", "view", "_unsafe_view", "reshape", "unsqueeze", "squeeze", "permute", "transpose"}


def find_squeezes(dataflow: Dataflow) -> list[Branch]:
    """All products of a stream and a factor that is made of it, in order; ``Branch.add`` is the product."""
    found = []
    for node in dataflow.nodes:
        operands = node.args[:2]
        if not dataflow.live[node.index] or node.op not in ("mul", "mul_") or len(operands) < 2:
            continue
        if all(isinstance(operand, Value) for operand in operands):
            branch = next((b for p in (0, 1) if (b := _squeeze(dataflow, node, p)) is not None), None)
            if branch is not None:
                found.append(branch)
    return found


def _squeeze(dataflow: Dataflow, node: Node, position: int) -> Branch | None:
    factor, stream = node.args[position], node.args[1 - position]
    if factor.producer is None or stream.param is not None or stream.shape != node.outputs[0].shape:
        return None
    if node.op == "mul_" and position == 0:
        return None
    if dataflow.post_dominator(factor.producer.index) != node.index:
        return None
    members = dataflow.served(factor.producer.index)
    inside = set(members)
    outside = {
        value.index
        for n in members
        for value in dataflow.nodes[n].inputs
        if value.param is None and (value.producer is None or value.producer.index not in inside)
    }
    averaged = any(dataflow.nodes[n].op in _OVER_POSITIONS for n in members)
    if outside != {stream.index} or not (averaged or _is_small(factor, stream)):
        return None
    return Branch(node, position, factor, stream, factor.producer.index, members)


def _is_small(factor: Value, stream: Value) -> bool:
    """Whether the factor has fewer numbers than the stream, before it was brought to its shape."""
    while factor.producer is not None and factor.producer.op in _LAYOUT and factor.shape == stream.shape:
        factor = factor.producer.inputs[0]
    return math.prod(factor.shape) < math.prod(stream.shape)


def squeeze_sites(branches: list[Branch]) -> tuple[Site, ...] | None:
    """The calls of the products, at which the factor is moved towards one; ``None`` if one of them has none."""
    found = []
    for branch in branches:
        call = branch.add.call
        position = None
        if call is not None and call.name in _PRODUCTS:
            position = next((p for p, value in call.values if value is branch.value), None)
        if call is None or position is None:
            return None
        found.append(Site("squeeze", call.place, call.name, call.ordinal, None, {"argument": position}))
    return tuple(found)
