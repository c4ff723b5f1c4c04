"""Integers that remember where they came from.

A forward pass computes sizes: ``x.view(b, groups, c // groups, h, w)``. Whether such a size follows when channels are
removed depends on its origin: a shape follows by itself, a module attribute can be set anew, a literal cannot change.
During capture, shapes and the integer attributes of modules are handed out as ``Dim``, an ``int`` that carries its
origin through arithmetic, so each rule can tell.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from compressor.graph.record import Value


@dataclass(frozen=True)
class FromAxis:
    """The size of one axis of a tensor."""

    value: Value
    axis: int


@dataclass(frozen=True)
class FromAttribute:
    """An integer attribute of a module; ``index`` when the attribute is a tuple or list of integers."""

    module: str
    name: str
    index: int | None = None


@dataclass(frozen=True)
class FromOperation:
    """``left operator right``, each a ``Dim`` or a plain ``int``."""

    operator: str
    left: int
    right: int


Origin = FromAxis | FromAttribute | FromOperation


class Dim(int):
    """An ``int`` with an origin. Arithmetic that may give a size again (+ - * //) keeps track; the rest gives ``int``."""

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

    def _binary(self, operator: str, left: int, right: Any, result: Any) -> Any:
        if result is NotImplemented or type(result) is not int or not isinstance(right, int):
            return result
        return Dim(result, FromOperation(operator, left, right))

    def __add__(self, other: Any) -> Any:
        return self._binary("+", self, other, int.__add__(self, other))

    def __radd__(self, other: Any) -> Any:
        return self._binary("+", other, self, int.__radd__(self, other))

    def __sub__(self, other: Any) -> Any:
        return self._binary("-", self, other, int.__sub__(self, other))

    def __rsub__(self, other: Any) -> Any:
        return self._binary("-", other, self, int.__rsub__(self, other))

    def __mul__(self, other: Any) -> Any:
        return self._binary("*", self, other, int.__mul__(self, other))

    def __rmul__(self, other: Any) -> Any:
        return self._binary("*", other, self, int.__rmul__(self, other))

    def __floordiv__(self, other: Any) -> Any:
        return self._binary("//", self, other, int.__floordiv__(self, other))

    def __rfloordiv__(self, other: Any) -> Any:
        return self._binary("//", other, self, int.__rfloordiv__(self, other))


def origin_of(size: int) -> Origin | None:
    """Where a size came from; ``None`` for a literal or for a number whose trace was lost."""
    return size.origin if isinstance(size, Dim) else None
