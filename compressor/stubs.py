"""What stands in the place of a module or parameter that was taken out.

A removed branch must add zero to its stream. Its last module becomes ``Zero``; the others become identities, because
the program still calls them. A module that does nothing without its branches becomes an identity as a whole.

Kinds, as ``Architecture.removed`` names them; a suffix ``+2`` says that the module returned a tuple whose first item is
the tensor, followed by that many ``None``:

- ``identity``: ``nn.Identity``, returns its argument.
- ``first``: returns its first argument, whatever else it is given.
- ``zero``: a scalar zero, which graph exporters fold away together with the addition. While training, zeros of its
  input's shape, for code around it that reads shapes.
- ``zeros``: always of its input's shape.
- ``scalar``: for a parameter; a buffer of no axes that is zero and not part of the state.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from compressor.errors import UsageError


class First(nn.Module):
    """Returns its first argument, with ``none_items`` times ``None`` behind it."""

    def __init__(self, none_items: int = 0) -> None:
        super().__init__()
        self.none_items = none_items

    def forward(self, x: Tensor, *args: Any, **kwargs: Any) -> Any:
        return (x, *[None] * self.none_items) if self.none_items else x


class Zero(nn.Module):
    """Returns zero: a scalar in evaluation mode, unless ``shaped``; else of the shape of its first argument."""

    def __init__(self, none_items: int = 0, *, shaped: bool = False) -> None:
        super().__init__()
        self.none_items, self.shaped = none_items, shaped

    def forward(self, x: Tensor, *args: Any, **kwargs: Any) -> Any:
        if self.shaped or self.training:
            zero = torch.zeros_like(x)
        else:
            zero = torch.zeros((), dtype=x.dtype, device=x.device)
        return (zero, *[None] * self.none_items) if self.none_items else zero


def stub(kind: str) -> nn.Module:
    """The module for a kind. Raises ``UsageError`` for an unknown one."""
    base, _, count = kind.partition("+")
    none_items = int(count) if count.isdigit() else 0
    if base == "identity" and not none_items:
        return nn.Identity()
    if base in ("identity", "first"):
        return First(none_items)
    if base in ("zero", "zeros"):
        return Zero(none_items, shaped=base == "zeros")
    raise UsageError(f"The architecture replaces a module by {kind!r}; known are identity, first, zero and zeros.")
