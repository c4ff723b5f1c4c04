"""Residual streams whose channels are addressed by index: a part of a network reads some of them and writes to some.

Each part then has widths of its own, whatever the others do, and a stream need only have the channels that something
reads or writes. ``tighten`` lays it out so, which changes nothing that the network computes.

``Read`` and ``Write`` are ordinary gathering and adding by index to whatever looks at the operators of a network (a
trace, an export, a compiler). While training, indices that are the first few, as they are after most searches, are
sliced and padded, which takes one pass over the data in place of three.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn


def is_watched(x: Tensor) -> bool:
    """Whether something looks at the operators that ``x`` goes through."""
    compiled = torch.compiler.is_compiling() or torch.compiler.is_exporting()
    return x.is_meta or compiled or torch._C._get_tracing_state() is not None


class _Addressed(nn.Module):
    index: Tensor

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.register_buffer("index", torch.arange(channels))
        self._known: tuple[Tensor, bool] | None = None

    def _first_few(self, x: Tensor) -> bool:
        """Whether the index is 0, 1, 2, ..., looked at once for each."""
        if is_watched(x):
            return False
        if self._known is None or self._known[0] is not self.index:
            ordered = torch.equal(self.index, torch.arange(len(self.index), device=self.index.device))
            self._known = self.index, ordered
        return self._known[1]

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_known": None}  # a copy may be given another index


class Read(_Addressed):
    """Takes channels of the stream, (B, C, ...) to (B, N, ...)."""

    def forward(self, x: Tensor) -> Tensor:
        if self._first_few(x):
            return x if len(self.index) == x.shape[1] else x.narrow(1, 0, len(self.index))
        return x.index_select(1, self.index)


class Write(_Addressed):
    """Scales channels and puts them where they belong in the stream, (B, N, ...) to (B, C, ...); the rest is zero.

    Args:
        channels: C, all of them at first.
        dims: spatial axes.
    """

    def __init__(self, channels: int, dims: int) -> None:
        super().__init__(channels)
        self.channels = channels
        self.scale = nn.Parameter(torch.ones(channels, *[1] * dims))

    def forward(self, y: Tensor) -> Tensor:
        y = y * self.scale
        if self._first_few(y):
            left = self.channels - len(self.index)
            return nn.functional.pad(y, (*[0, 0] * (y.dim() - 2), 0, left)) if left else y
        empty = y.new_zeros((y.shape[0], self.channels, *y.shape[2:]))
        return empty.index_add(1, self.index, y)


def tighten(model: nn.Module, buffers: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The indices of a model's ``Read`` and ``Write``, by name, for a stream of nothing but the channels in use.

    Also sets how many those are. A model is taken to have one stream.

    Args:
        buffers: what stands in place of the registered indices, by name.
    """
    found = {name: module for name, module in model.named_modules() if isinstance(module, _Addressed)}
    names = {name: f"{name}.index" if name else "index" for name in found}
    indices = {names[name]: buffers.get(names[name], module.index) for name, module in found.items()}
    if not indices:
        return {}
    used = torch.unique(torch.cat([index.cpu() for index in indices.values()]))
    for module in found.values():
        if isinstance(module, Write):
            module.channels = len(used)
    return {name: torch.searchsorted(used, index.cpu()).to(index.device) for name, index in indices.items()}
