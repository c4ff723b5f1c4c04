"""Modules whose input or output is pooled: by a hook, so that the module's class and the names of its weights stay."""

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


class PoolInput:
    """The same over the last axes of the first argument, before the module sees it."""

    def __init__(self, size: Sequence[int], mode: str) -> None:
        self.size, self.mode = tuple(size), mode

    def __call__(self, module: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...]:
        return (_FUNCTIONS[self.mode, len(self.size)](args[0], self.size), *args[1:])


def pool_(module: nn.Module, size: Sequence[int], mode: str, at: str = "output") -> None:
    """Pool what ``module`` returns, or with ``at="input"`` the first argument that it takes, from now on."""
    if at == "input":
        module.register_forward_pre_hook(PoolInput(size, mode))
    else:
        module.register_forward_hook(Pool(size, mode))


def is_pooled(module: nn.Module) -> bool:
    """Whether ``pool_`` was called on it."""
    hooks = (*module._forward_hooks.values(), *module._forward_pre_hooks.values())
    return any(isinstance(hook, (Pool, PoolInput)) for hook in hooks)
