"""What a convolution is there for, by where it stands: on a shortcut, or as the head that writes an output."""

from __future__ import annotations

from compressor.graph.recording.values import Node, Value

_CONVOLUTIONS = {"convolution", "_convolution"}
_SUMS = {"add", "sub"}


def shortcuts(nodes: list[Node]) -> tuple[str, ...]:
    """Modules of the convolutions that project a shortcut.

    Such a convolution alone leads from some x to an addition, where what two convolutions or more make of x is added.
    """
    found = []
    for node in nodes:
        tensors = [value for value in node.inputs if value.param is None]
        if node.op.rstrip("_") not in _SUMS or len(tensors) != 2:
            continue
        for one, other in (tensors, tensors[::-1]):
            projection = _only_convolution(one)
            if projection is not None:
                start = projection.inputs[0]
                if _convolutions_since(other, start, without=projection) >= 2:
                    found.append(projection.place)
    return tuple(dict.fromkeys(found))


def heads(outputs: list[Value]) -> tuple[str, ...]:
    """Modules of the convolutions with nothing but elementwise operators between them and an output."""
    found = [_only_convolution(value, resized=True) for value in outputs]
    return tuple(dict.fromkeys(node.place for node in found if node is not None))


def _only_convolution(value: Value, *, resized: bool = False) -> Node | None:
    """The convolution that a value is made of through operators of one input, such as normalisations.

    ``resized`` lets these change the positions, too.
    """
    while value.producer is not None:
        node = value.producer
        if node.op.rstrip("_") in _CONVOLUTIONS:
            return node
        dynamic = [v for v in node.inputs if v.param is None]
        kept = 2 if resized else None
        if len(dynamic) != 1 or dynamic[0].shape[:kept] != value.shape[:kept]:
            return None
        value = dynamic[0]
    return None


def _convolutions_since(value: Value, start: Value, without: Node) -> int:
    """Convolutions between ``start`` and ``value``; 0 if ``without`` is one, or none of them leads there."""
    first = start.producer.index if start.producer is not None else -1
    waiting, seen, count, reached = [value], {value.index}, 0, False
    while waiting:
        value = waiting.pop()
        reached = reached or value.index == start.index
        node = value.producer
        if value.index == start.index or node is None or node.index <= first:
            continue
        if node is without:
            return 0
        new = [v for v in node.inputs if v.param is None and v.index not in seen]
        count += node.op.rstrip("_") in _CONVOLUTIONS
        seen |= {v.index for v in new}
        waiting += new
    return count if reached else 0
