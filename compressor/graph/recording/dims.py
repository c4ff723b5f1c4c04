"""Numbers that remember where they came from.

A forward pass computes sizes: ``x.view(b, groups, c // groups, h, w)``. Whether such a size follows when channels are
removed depends on its origin: a shape follows by itself, a module attribute can be set anew, a literal cannot change.
During capture, shapes and the integer attributes of modules are handed out as ``Dim``, an ``int`` that carries its
origin through arithmetic, so each rule can tell. Where arithmetic leaves the integers (``head_dim ** -0.5``) it gives a
``Scalar``, a ``float`` of the same kind, so that the masked model can use the number the trimmed model will compute.
A number that escapes (``float(n)``, ``int(0.5 * n)``) is noted; what it was made from must not change.
"""

from __future__ import annotations

import math
import operator
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from compressor.process.sharing import Switch

if TYPE_CHECKING:
    from compressor.graph.recording.values import Value


@dataclass(frozen=True)
class FromAxis:
    """The size of one axis of a tensor."""

    value: Value
    axis: int


@dataclass(frozen=True)
class FromAttribute:
    """An integer attribute of a module; ``index`` when the attribute is a tuple, list or dictionary of integers."""

    module: str
    name: str
    index: int | str | None = None


@dataclass(frozen=True)
class FromOperation:
    """``left operator right``, each a ``Dim``, a ``Scalar`` or a plain number."""

    operator: str
    left: Any
    right: Any


SIZES_OF_TORCH = frozenset({"in_channels", "out_channels", "in_features", "out_features", "num_features",
                            "num_channels", "num_embeddings", "embedding_dim", "hidden_size", "proj_size"})  # fmt: skip
"""Attributes of PyTorch's own modules that are lengths of axes of their weights."""

Origin = FromAxis | FromAttribute | FromOperation


OPERATORS: dict[str, Callable[[Any, Any], Any]] = {
    "+": operator.add,
    "-": operator.sub,
    "*": operator.mul,
    "/": operator.truediv,
    "//": operator.floordiv,
    "**": operator.pow,
}


class _Escaped(threading.local):
    """Numbers turned into plain ones since ``tracing`` was entered, and sizes found equal; of this thread."""

    def __init__(self) -> None:
        self.numbers: list[Dim | Scalar] = []
        self.equal: list[tuple[Dim, int]] | None = None  # None outside of a trace


_ESCAPED = _Escaped()


def _plain(number: Any) -> Any:
    if isinstance(number, int):
        return int.__int__(number)
    return float.__float__(number) if isinstance(number, float) else number


def _traced(symbol: str, left: Any, right: Any) -> Any:
    """The result of an operator with its origin; ``NotImplemented`` for anything but numbers."""
    if not (isinstance(left, (int, float)) and isinstance(right, (int, float))):
        return NotImplemented
    result = OPERATORS[symbol](_plain(left), _plain(right))
    if isinstance(result, int):
        return Dim(result, FromOperation(symbol, left, right))
    return Scalar(result, FromOperation(symbol, left, right)) if isinstance(result, float) else result


class _Arithmetic:
    """The operators that keep track; all others give plain numbers."""

    def __add__(self, other: Any) -> Any:
        return _traced("+", self, other)

    def __radd__(self, other: Any) -> Any:
        return _traced("+", other, self)

    def __sub__(self, other: Any) -> Any:
        return _traced("-", self, other)

    def __rsub__(self, other: Any) -> Any:
        return _traced("-", other, self)

    def __mul__(self, other: Any) -> Any:
        return _traced("*", self, other)

    def __rmul__(self, other: Any) -> Any:
        return _traced("*", other, self)

    def __floordiv__(self, other: Any) -> Any:
        return _traced("//", self, other)

    def __rfloordiv__(self, other: Any) -> Any:
        return _traced("//", other, self)

    def __truediv__(self, other: Any) -> Any:
        return _traced("/", self, other)

    def __rtruediv__(self, other: Any) -> Any:
        return _traced("/", other, self)

    def __pow__(self, other: Any) -> Any:
        return _traced("**", self, other)

    def __rpow__(self, other: Any) -> Any:
        return _traced("**", other, self)

    def __neg__(self) -> Any:
        return _traced("*", -1, self)


class Dim(_Arithmetic, int):  # type: ignore[misc]  # the operators accept more than int's
    """An ``int`` with an origin."""

    origin: Origin

    def __new__(cls, value: int, origin: Origin) -> Dim:
        self = super().__new__(cls, value)
        self.origin = origin
        return self

    def __reduce__(self) -> Any:  # copies and pickles are plain integers
        return (int, (int(self),))

    def __deepcopy__(self, memo: dict[int, Any]) -> int:
        return int(self)

    def __index__(self) -> int:
        return int.__int__(self)

    def __eq__(self, other: object) -> bool:
        return _found_equal(self, other)

    def __ne__(self, other: object) -> bool:
        return not _found_equal(self, other)

    __hash__ = int.__hash__

    def __float__(self) -> float:
        _ESCAPED.numbers.append(self)
        return int.__float__(self)


def _found_equal(a: Dim, b: object) -> bool:
    """Whether they are equal, which is noted if it is the program that asks, not a module of PyTorch's."""
    same: bool = int.__eq__(a, b) is True
    if same and _ESCAPED.equal is not None and isinstance(b, int) and int.__gt__(a, 1):
        asking = sys._getframe(2).f_globals.get("__name__", "")
        if not asking.startswith(("torch.", "compressor.")):
            _ESCAPED.equal.append((a, b))
    return same


class Scalar(_Arithmetic, float):  # type: ignore[misc]
    """A ``float`` computed from sizes."""

    origin: FromOperation

    def __new__(cls, value: float, origin: FromOperation) -> Scalar:
        self = super().__new__(cls, value)
        self.origin = origin
        return self

    def __reduce__(self) -> Any:
        return (float, (float.__float__(self),))

    def __deepcopy__(self, memo: dict[int, Any]) -> float:
        return float.__float__(self)

    def __float__(self) -> float:
        _ESCAPED.numbers.append(self)
        return float.__float__(self)

    def __int__(self) -> int:
        _ESCAPED.numbers.append(self)
        return float.__int__(self)

    def __round__(self, digits: Any = None) -> Any:
        _ESCAPED.numbers.append(self)
        return round(float.__float__(self), digits)

    __trunc__ = __int__

    def __floor__(self) -> int:
        return math.floor(float(self))

    def __ceil__(self) -> int:
        return math.ceil(float(self))


@contextmanager
def tracing() -> Iterator[list[Dim | Scalar]]:
    """Inside, ``math.sqrt`` keeps track too; yields the list of what escapes."""
    outer = _ESCAPED.numbers, _ESCAPED.equal
    _ESCAPED.numbers, _ESCAPED.equal = [], []
    try:
        with _TRACKED_SQRT.on():
            yield _ESCAPED.numbers
    finally:
        _ESCAPED.numbers, _ESCAPED.equal = outer


def found_equal() -> list[tuple[Dim, int]]:
    """The sizes that the program compared inside ``tracing``, and found equal."""
    return list(_ESCAPED.equal or ())


def _track_sqrt() -> Callable[[], None]:
    """The one function of ``math`` that keeps track; it is as before for all other numbers."""
    plain = math.sqrt

    def sqrt(x: Any, /) -> Any:
        return x**0.5 if isinstance(x, (Dim, Scalar)) else plain(x)

    def put_back() -> None:
        math.sqrt = plain

    math.sqrt = sqrt
    return put_back


_TRACKED_SQRT = Switch(_track_sqrt)


def origin_of(size: int) -> Origin | None:
    """Where a size came from; ``None`` for a literal or for a number whose trace was lost."""
    return size.origin if isinstance(size, Dim) else None
