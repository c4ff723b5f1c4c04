"""What a recording holds: values, the calls that made them, and the modules these ran in."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from compressor.arrays import IntArray
from compressor.graph.recording.program_line import TAKE_SIZES, program_line

Axes = list[IntArray | None]


def _storage_of(tensor: Tensor) -> int:
    """What tells whether two tensors share memory; a tensor that has none of its own (sparse, inside vmap) is alone."""
    try:
        return tensor.untyped_storage()._cdata if tensor.layout is torch.strided else id(tensor)
    except NotImplementedError:
        return id(tensor)


class Value:
    """One tensor at one moment: in-place operators give a new value.

    ``axes`` holds, per axis, the labels or ``None`` for an axis that never changes size. ``param`` is the name of the
    parameter or buffer the value is, or is a part or a mere permutation of; ``param_axes`` then maps axes to the
    parameter's. Where the parameter is zero, the value is.
    """

    __slots__ = (
        "axes", "index", "is_mask", "itemsize", "param", "param_axes", "producer", "shape", "storage", "used",
    )  # fmt: skip

    def __init__(self, index: int, tensor: Tensor, producer: Node | None) -> None:
        self.index = index
        self.shape: tuple[int, ...] = tuple(tensor.shape)
        self.itemsize = tensor.element_size()
        self.is_mask = tensor.dtype is torch.bool
        self.storage: int = _storage_of(tensor)
        self.producer = producer
        self.axes: Axes = [None] * len(self.shape)
        self.param: str | None = None
        self.param_axes: tuple[int | None, ...] = ()
        self.used = False  # by a rule that has run: its labels may have been handed on

    def __repr__(self) -> str:
        return f"%{self.index}{list(self.shape)}"


class Call:
    """A PyTorch function as the program called it; ``ordinal`` counts its calls inside one module and pass.

    ``line`` is where the program did, as "file:line", for functions that take sizes.
    """

    __slots__ = ("args", "func", "kwargs", "line", "name", "ordinal", "place", "values")

    def __init__(
        self,
        func: Callable[..., Any],
        name: str,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        place: str,
        ordinal: int,
    ) -> None:
        self.func, self.name, self.args, self.kwargs, self.place, self.ordinal = (
            func,
            name,
            args,
            kwargs,
            place,
            ordinal,
        )
        self.values: list[tuple[int | str, Value]] = []
        self.line = program_line() if name in TAKE_SIZES else ""


class Node:
    """One operator call: ``args`` and ``kwargs`` as dispatched, with values in place of tensors."""

    __slots__ = ("args", "call", "index", "inputs", "kwargs", "mutates", "op", "outputs", "overload", "place", "scope")

    def __init__(self, index: int, op: str, overload: Any, place: str, call: Call | None, scope: int = -1) -> None:
        self.index, self.op, self.overload, self.place, self.call = index, op, overload, place, call
        self.scope = scope  # index of the innermost module call
        self.args: tuple[Any, ...] = ()
        self.kwargs: dict[str, Any] = {}
        self.inputs: list[Value] = []
        self.outputs: list[Value] = []
        self.mutates = False

    def argument(self, name: str) -> Any:
        """An argument by the name that the operator's schema gives it, its default where the call leaves it out."""
        for position, argument in enumerate(self.overload._schema.arguments):
            if argument.name == name:
                default = argument.default_value if argument.has_default_value() else None
                return self.args[position] if position < len(self.args) else self.kwargs.get(name, default)
        raise KeyError(name)

    def __repr__(self) -> str:
        return f"{self.outputs} = {self.op}({self.inputs}) @ {self.place}"


Key = int | str


@dataclass(eq=False, slots=True)
class ModuleCall:
    """One run of a module's forward: nodes ``start`` up to (not including) ``end``.

    ``inputs`` are the arguments that are tensors, by position or keyword, and ``arity`` is the number of all arguments.
    ``returned`` is the tensor that it returns, or the items of the tuple: tensors, ``None``, the position or keyword of
    an argument that is handed on, or ``...`` for anything else. ``args``, ``kwargs`` and ``result`` are what it was
    given and returned itself, until the recording is released.
    """

    module: str
    parent: int
    start: int
    end: int
    inputs: dict[Key, Value]
    arity: int
    returned: Value | tuple[Any, ...] | None = None
    args: tuple[Any, ...] = ()
    kwargs: dict[str, Any] = field(default_factory=dict)
    result: Any = None

    @property
    def first(self) -> Value | None:
        """The first tensor among the arguments."""
        return next(iter(self.inputs.values()), None)

    def returns(self) -> list[Value]:
        """The tensors returned that were not among the arguments."""
        items = self.returned if isinstance(self.returned, tuple) else (self.returned,)
        return [item for item in items if isinstance(item, Value)]
