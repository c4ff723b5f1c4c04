"""Give attributes of a module that hold sizes other values."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from torch import nn

from compressor.architecture.edits.base import Edit, Work
from compressor.nn import multihead

Size = int | list[int] | dict[str, int]


@dataclass(frozen=True)
class SetSizes(Edit):
    """Attributes that may be set are whole numbers, or rows of them, that the module itself holds; none can grow."""

    module: str
    values: dict[str, int | list[int] | dict[str, int]]

    kind: ClassVar[str] = "set_sizes"

    def check(self, work: Work) -> None:
        module = work.modules.get(self.module)
        if module is None:
            self.refuse("the model has no such module")
        for name, value in self.values.items():
            self._check(module, name, value)

    def apply_(self, work: Work) -> None:
        module = work.modules[self.module]
        if multihead.WIDTHS[0] in self.values and multihead.can_narrow(module):
            multihead.narrow_(module)
        for name, value in self.values.items():
            set_size_(module, name, value)

    def _check(self, module: nn.Module, name: str, value: Any) -> None:
        if name in multihead.WIDTHS and multihead.can_narrow(module):
            current = module.__dict__["embed_dim"]
        else:
            current = vars(module).get(name)
        if type(current) is int:
            pairs = [(current, value)]
        elif isinstance(current, (tuple, list)) and isinstance(value, list) and len(current) == len(value):
            pairs = list(zip(current, value, strict=True))
        elif isinstance(current, dict) and isinstance(value, dict) and current.keys() == value.keys():
            pairs = [(current[key], value[key]) for key in current]
        elif isinstance(current, (tuple, list)) and isinstance(value, list) and _is_order(current) and _is_order(value):
            pairs = [(len(current), len(value))]  # of what is kept
        else:
            pairs = []
        if not pairs or not all(type(a) is int and type(b) is int for a, b in pairs):
            self.refuse(f"{name[:60]!r} is no size that a {type(module).__name__} holds, or not one of this form")
        if not all(0 <= b <= max(a, 0) for a, b in pairs):
            self.refuse(f"{name} = {value!r} does not lie within 0 and {current}, what the model has")


def set_size_(module: nn.Module, name: str, value: Any) -> None:
    """Give an attribute that holds one or several sizes another value, of the type it has."""
    current = getattr(module, name, None)
    setattr(
        module, name, dict(value) if isinstance(value, dict) else tuple(value) if isinstance(current, tuple) else value
    )
    if name == "axes_lengths" and isinstance(getattr(module, "_axes_lengths", None), tuple):
        vars(module)["_axes_lengths"] = tuple(value.items())  # einops computes with a second copy


def _is_order(numbers: Sequence[Any]) -> bool:
    return all(type(n) is int for n in numbers) and sorted(numbers) == list(range(len(numbers)))
