"""What stands in the place of a module or parameter that was taken out.

A removed branch must add zero to its stream, or multiply it by one. Its last module becomes ``Zero`` or ``One``; the
others become identities, because the program still calls them. A module that does nothing without its branches becomes
an identity as a whole.

Kinds, as ``Architecture.removed`` names them:

- ``identity``: ``nn.Identity``, returns its argument.
- ``first``: returns its first argument, whatever else it is given.
- ``zero``: a scalar zero, which graph exporters fold away together with the addition. While training, zeros of its
  input's shape, for code around it that reads shapes.
- ``zero4`` (or another number of axes): likewise, but while training one zero per example, of that many axes: for a
  branch whose result has another shape than its input.
- ``zeros``: always of its input's shape.
- ``empty``: no elements along one axis, which ``torch.cat`` passes over: for a branch that is concatenated.
- ``one``: a scalar one, for a branch that is a factor of its stream.
- ``scalar``: for a parameter; a buffer of no axes that is zero and not part of the state.

A suffix ``@name`` says which argument is the input, by keyword or position; a suffix ``+2`` that a tuple is returned
whose first item is the tensor, followed by that many ``None``; ``+tensor,none,cache`` lists the items of the tuple: the
tensor, ``None``, or an argument that is handed on.
"""

from __future__ import annotations

import re
import types
from typing import Any

import torch
from torch import Tensor, nn

from compressor.errors import UsageError

Key = int | str
_KIND = re.compile(r"(identity|first|zeros|zero|one|empty)(\d*)(?:@(\w+))?(?:\+(.+))?")


def kind_of(base: str, argument: Key = 0, items: tuple[Key | None, ...] | None = None) -> str:
    """The name of a kind.

    ``argument`` is the input. ``items`` are those of the tuple that is returned, if it is one: "tensor", ``None`` or
    the argument handed on.
    """
    if base == "identity" and (argument != 0 or items is not None):
        base = "first"
    given = "" if argument == 0 else f"@{argument}"
    if items is None:
        return base + given
    if len(items) > 1 and items[0] == "tensor" and not any(item is not None for item in items[1:]):
        return f"{base}{given}+{len(items) - 1}"
    names = ("none" if item is None else str(item) for item in items)
    return f"{base}{given}+{','.join(names)}"


class _Stub(nn.Module):
    """Knows its input among its arguments, and what to return around its result."""

    def __init__(self, argument: Key = 0, items: tuple[Key | None, ...] | None = None) -> None:
        super().__init__()
        self.argument, self.items = argument, items

    def packed(self, result: Tensor, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if self.items is None:
            return result
        return tuple(
            result if item == "tensor" else None if item is None else _given(item, args, kwargs) for item in self.items
        )


class First(_Stub):
    """Returns its input."""

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        return self.packed(_given(self.argument, args, kwargs), args, kwargs)


class Zero(_Stub):
    """Returns zero: a scalar in evaluation mode, unless ``shaped``; else of its input's shape, or of ``rank`` axes."""

    def __init__(
        self,
        argument: Key = 0,
        items: tuple[Key | None, ...] | None = None,
        *,
        shaped: bool = False,
        rank: int | None = None,
    ) -> None:
        super().__init__(argument, items)
        self.shaped, self.rank = shaped, rank

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        x = _given(self.argument, args, kwargs)
        shape: tuple[int, ...] = ()
        if self.shaped or (self.training and self.rank is None):
            shape = x.shape
        elif self.training and self.rank:
            shape = (x.shape[0], *[1] * (self.rank - 1))
        return self.packed(torch.zeros(shape, dtype=x.dtype, device=x.device), args, kwargs)


class Empty(_Stub):
    """Returns a tensor of shape (0,)."""

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        x = _given(self.argument, args, kwargs)
        return self.packed(torch.zeros((0,), dtype=x.dtype, device=x.device), args, kwargs)


class One(_Stub):
    """Returns the number one, a scalar."""

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        x = _given(self.argument, args, kwargs)
        return self.packed(torch.ones((), dtype=x.dtype, device=x.device), args, kwargs)


def _given(key: Key, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    return args[key] if isinstance(key, int) else kwargs[key]


def stub(kind: str) -> nn.Module:
    """The module for a kind. Raises ``UsageError`` for an unknown one."""
    match = _KIND.fullmatch(kind)
    base, rank, argument, items = match.groups() if match is not None else ("", "", None, None)
    if not base or (rank and base != "zero"):
        raise UsageError(
            f"The architecture replaces a module by {kind!r}; known are identity, first, zero, zeros, one and empty."
        )
    key = 0 if argument is None else _key(argument)
    returned = None if items is None else _items(items)
    if base == "identity" and key == 0 and returned is None:
        return nn.Identity()
    if base in ("identity", "first"):
        return First(key, returned)
    if base in ("one", "empty"):
        return One(key, returned) if base == "one" else Empty(key, returned)
    return Zero(key, returned, shaped=base == "zeros", rank=int(rank) if rank else None)


def stand_in(kind: str, module: nn.Module) -> nn.Module:
    """``stub`` in the place of ``module``: with its settings and those of what is inside it.

    The code around a module may ask for them before it calls it: PyTorch's encoder asks its layers' attention for
    ``batch_first`` and ``in_proj_bias``, to see whether it can do without calling them. Parameters are ``None``.
    """
    made = stub(kind).train(module.training)
    for name, value in _settings(module).items():
        if not hasattr(made, name):
            vars(made)[name] = value
    return made


_PLAIN = (bool, int, float, str, type(None), types.SimpleNamespace)


def _settings(module: nn.Module) -> dict[str, Any]:
    own = {name: value for name, value in vars(module).items() if type(value) in _PLAIN}
    inside = {
        name: types.SimpleNamespace(**_settings(child)) for name, child in module._modules.items() if child is not None
    }
    return {**own, **dict.fromkeys(module._parameters), **inside}


def _key(text: str) -> Key:
    return int(text) if text.isdigit() else text


def _items(text: str) -> tuple[Key | None, ...]:
    if text.isdigit() and len(text) > 2:
        raise UsageError(f"The architecture replaces a module by one that returns {text[:20]}... things.")
    if text.isdigit():
        return ("tensor", *[None] * int(text))
    return tuple(None if item == "none" else _key(item) for item in text.split(","))
