"""Numbers computed from sizes and used in arithmetic: ``scores * head_dim ** -0.5``, ``x.sum(1) / x.shape[1]``.

The trimmed model computes them from its own sizes, so the masked model must compute them from what is kept: a site of
kind "scalar" at the call. Numbers made from several sizes that change apart are not followed; those sizes are fixed.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from compressor.arrays import IntArray
from compressor.graph.labels.flow import Flow
from compressor.graph.recording.dims import Dim, FromAttribute, FromAxis, FromOperation, Scalar
from compressor.graph.recording.values import Call, Node

_ARITHMETIC = {
    "add", "sub", "subtract", "mul", "multiply", "div", "divide", "true_divide", "truediv", "pow", "clamp", "clamp_min",
    "clamp_max", "addcmul", "addcdiv", "lerp", "full", "full_like", "fill", "masked_fill", "new_full", "floordiv",
    "floor_divide", "remainder", "where", "maximum", "minimum", "tensor", "as_tensor",
}  # fmt: skip
_TAKES_TENSOR = {"add", "sub", "mul", "div", "true_divide", "truediv", "pow", "multiply", "divide", "subtract"}


def follow_scalars(flow: Flow, nodes: Iterable[Node], escaped: Iterable[Dim | Scalar]) -> None:
    """Note a site for every call that takes such a number; fix what escaped numbers were made from."""
    seen: set[int] = set()
    for node in nodes:
        call = node.call
        if call is None or id(call) in seen:
            continue
        seen.add(id(call))
        flow.node = node
        arguments: list[tuple[int | str, Any]] = [*enumerate(call.args), *call.kwargs.items()]
        for argument, number in arguments:
            if isinstance(number, Scalar) or (isinstance(number, Dim) and _core(call) in _ARITHMETIC):
                _follow(flow, call, argument, number)
            elif isinstance(number, (tuple, list)):
                for item in number:
                    if isinstance(item, Scalar):
                        _fix(flow, _leaves(flow, item), "a number in a list is computed from it")
    flow.node = None
    for number in escaped:
        _fix(flow, _leaves(flow, number), "its size is used as a plain number by the program")


def follow_comparisons(flow: Flow, equal: Iterable[tuple[Dim, int]]) -> None:
    """Keep equal what a forward compares with an attribute (``if x.shape[1] != self.channels: raise``) or a literal."""
    for pair in equal:
        dims = [size for size in pair if isinstance(size, Dim)]
        axes = [size for size in dims if isinstance(size.origin, FromAxis)]
        others = [size for size in dims if size is not axes[0]] if len(axes) == 1 else []
        if len(axes) != 1 or any(not isinstance(size.origin, FromAttribute) for size in others):
            continue
        labels = flow.labels_of(axes[0])
        if labels is None or flow.is_fixed(labels):
            continue
        if len(dims) == 1:
            flow.fix(labels, f"compared with the constant {int(pair[1])} by the program")
        else:
            flow.bind(others[0], labels, "compared with a size, which")


def _follow(flow: Flow, call: Call, argument: int | str, number: Dim | Scalar) -> None:
    leaves = _leaves(flow, number)
    if not leaves:
        return
    roots = flow.labels.find(leaves[0]).tobytes()
    if _core(call) in ("tensor", "as_tensor") or any(flow.labels.find(other).tobytes() != roots for other in leaves):
        _fix(flow, leaves, "a number is computed from it in a way that is not followed")
        return
    options = {
        "argument": argument,
        "expression": _expression(flow, number),
        "tensor": _core(call) in _TAKES_TENSOR and argument in (0, 1, "other", "exponent"),
    }
    flow.adjusts("scalar", leaves[0], **options)


def _core(call: Call) -> str:
    """``mul`` for ``mul_``, ``__mul__``, ``__imul__`` and ``__rmul__``."""
    name = call.name.strip("_")
    return name[1:] if call.name.startswith("__") and name[0] in "ri" and name[1:] in _ARITHMETIC else name


def _labels(flow: Flow, number: Any) -> IntArray | None:
    """Labels that an integer is the count of; ``None`` for one to be taken as it is or as an expression."""
    if not isinstance(number, Dim):
        return None
    origin = number.origin
    if isinstance(origin, FromOperation):
        if origin.operator != "//" or int(origin.left) % max(int(origin.right), 1):
            return None
        parts = [_labels(flow, part) for part in (origin.left, origin.right)]
        return flow.labels_of(number) if any(part is not None for part in parts) else None
    if isinstance(origin, FromAttribute) and origin not in flow.attributes and not flow.of_torch(origin):
        return None  # sizes nothing, so it will stay as it is
    labels = flow.labels_of(number)
    return None if labels is None or flow.is_fixed(labels) else labels


def _leaves(flow: Flow, number: Any) -> list[IntArray]:
    labels = _labels(flow, number)
    if labels is not None:
        return [labels]
    if isinstance(number, (Dim, Scalar)) and isinstance(number.origin, FromOperation):
        return [leaf for part in (number.origin.left, number.origin.right) for leaf in _leaves(flow, part)]
    return []


def _expression(flow: Flow, number: Any) -> Any:
    """Nested ``(operator, left, right)`` over numbers and ``"n"``, the number of what is kept."""
    if _labels(flow, number) is not None:
        return "n"
    if isinstance(number, (Dim, Scalar)) and isinstance(number.origin, FromOperation) and _leaves(flow, number):
        origin = number.origin
        return origin.operator, _expression(flow, origin.left), _expression(flow, origin.right)
    return int.__int__(number) if isinstance(number, int) else float.__float__(number)


def _fix(flow: Flow, leaves: list[IntArray], text: str) -> None:
    for leaf in leaves:
        flow.fix(leaf, text)
