"""Bounds of values, as far as they follow from the operators: a ReLU changes nothing that is not negative anyway."""

from __future__ import annotations

import math

from compressor.graph.recording.values import Node

Range = tuple[float, float]

_GIVES: dict[str, Range] = {
    "relu": (0.0, math.inf), "relu6": (0.0, 6.0), "sigmoid": (0.0, 1.0), "hardsigmoid": (0.0, 1.0),
    "_softmax": (0.0, 1.0), "softmax": (0.0, 1.0),
}  # fmt: skip
_PASSES = {
    "view", "_unsafe_view", "reshape", "_reshape_alias", "permute", "transpose", "t", "unsqueeze", "squeeze", "clone",
    "contiguous", "alias", "detach", "slice", "roll", "flip", "select", "expand", "max_pool2d", "max_pool1d",
    "max_pool2d_with_indices", "max_pool3d_with_indices", "adaptive_max_pool2d", "adaptive_avg_pool2d",
    "_adaptive_avg_pool2d", "dropout", "upsample_nearest2d", "mean", "split", "split_with_sizes", "chunk", "unbind",
}  # fmt: skip


def ranges(nodes: list[Node]) -> dict[int, Range]:
    """Per value index, bounds of all entries; values without known bounds are left out."""
    found: dict[int, Range] = {}
    for node in nodes:
        known = _range(node, found)
        if known is not None:
            for output in node.outputs:
                found[output.index] = known
    return found


def _range(node: Node, found: dict[int, Range]) -> Range | None:
    op = node.op.rstrip("_") if not node.op.startswith("_") else node.op
    if op in _GIVES:
        return _GIVES[op]
    if op == "hardtanh":
        return _clip(node)
    inputs = [found.get(value.index) for value in node.inputs]
    if not inputs or None in inputs:
        return None
    if op in _PASSES:
        return inputs[0]
    lows, highs = [r[0] for r in inputs if r], [r[1] for r in inputs if r]
    if op == "cat":
        return min(lows), max(highs)
    if op in ("add", "mul") and min(lows) >= 0 and node.kwargs.get("alpha", 1) >= 0 and len(inputs) == 2:
        return 0.0, math.inf
    return None


def _clip(node: Node) -> Range:
    low = node.args[1] if len(node.args) > 1 else -1.0
    high = node.args[2] if len(node.args) > 2 else 1.0
    return float(low), float(high)


def idempotent(node: Node, known: Range | None) -> bool:
    """Whether ``node`` changes nothing in a value of that range."""
    if known is None:
        return False
    op = node.op.rstrip("_")
    clip = _clip(node) if op == "hardtanh" else _GIVES[op] if op in ("relu", "relu6") else None
    return clip is not None and clip[0] <= known[0] and known[1] <= clip[1]
