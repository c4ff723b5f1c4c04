"""Modules whose output is pooled: by a hook, so that the module's class and the names of its weights stay."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn
from torch.nn import functional as F

MODES = ("max", "avg")
_FUNCTIONS: dict[tuple[str, int], Any] = {
    ("max", 1): F.max_pool1d, ("max", 2): F.max_pool2d, ("max", 3): F.max_pool3d,
    ("avg", 1): F.avg_pool1d, ("avg", 2): F.avg_pool2d, ("avg", 3): F.avg_pool3d,
}  # fmt: skip


class Pool:
    """Windows that do not overlap, over the last axes of the output."""

    def __init__(self, size: Sequence[int], mode: str) -> None:
        self.size, self.mode = tuple(size), mode

    def __call__(self, module: nn.Module, args: tuple[Any, ...], output: Tensor) -> Tensor:
        found: Tensor = _FUNCTIONS[self.mode, len(self.size)](output, self.size)
        return found


def pool_(module: nn.Module, size: Sequence[int], mode: str) -> None:
    """Pool what ``module`` returns, from now on."""
    module.register_forward_hook(Pool(size, mode))


def is_pooled(module: nn.Module) -> bool:
    """Whether ``pool_`` was called on it."""
    return any(isinstance(hook, Pool) for hook in module._forward_hooks.values())
