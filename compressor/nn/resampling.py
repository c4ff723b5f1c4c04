"""Modules that get their input on fewer samples, or give their output back on more: fixed matrices around a forward.

The forward of a user's class is never rewritten. Hooks multiply by what the module has under names of ours, as buffers
that are no part of its state, so ``state_dict`` and the module's class stay as they were.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from compressor.nn import spectral

BEFORE, AFTER = "resample_before_", "resample_after_"
ONE_IN = 8  # so many examples are filtered, where that saves nothing


class _Before:
    """Resamples the first argument, or filters it where no axis gets shorter.

    A filter is there for its gradient alone, that of frequencies which may go: it acts on some of a batch, and its
    gradient counts for all. Filtering everything takes as long as the convolutions that follow.
    """

    def __init__(self, axes: int) -> None:
        self.axes = axes

    def __call__(self, module: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...]:
        x, matrices = args[0], _matrices(module, BEFORE, self.axes, args[0])
        given = [(m, n) for m, n in zip(matrices, x.shape[2:], strict=True) if m is not None]
        if not given or any(len(m) < n for m, n in given):
            return (spectral.resample(x, matrices), *args[1:])
        some = -(-len(x) // ONE_IN)
        weight = len(x) / some
        first, rest = x.split([some, len(x) - some])
        counted = tuple(None if m is None else _weighted(m, weight) for m in matrices)
        return (torch.cat([spectral.resample(first, counted), rest]), *args[1:])


class _Weighted(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: float) -> Tensor:
        ctx.weight = weight
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Any:
        return gradients[0] * ctx.weight, None


def _weighted(x: Tensor, weight: float) -> Tensor:
    """``x``, with its gradient times ``weight``."""
    found: Tensor = _Weighted.apply(x, weight)
    return found


class _After:
    """Resamples the output."""

    def __init__(self, axes: int) -> None:
        self.axes = axes

    def __call__(self, module: nn.Module, args: tuple[Any, ...], output: Tensor) -> Tensor:
        return spectral.resample(output, _matrices(module, AFTER, self.axes, output))


def _matrices(module: nn.Module, name: str, axes: int, x: Tensor) -> tuple[Tensor | None, ...]:
    found = [getattr(module, f"{name}{d}", None) for d in range(axes)]
    return tuple(None if matrix is None else matrix.to(x.dtype) for matrix in found)


def hook_(modules: Mapping[str, nn.Module], inputs: Sequence[str], output: str, axes: int) -> list[Any]:
    """Let modules resample by the matrices they have, if they have some; returns handles to undo it."""
    before = [modules[name].register_forward_pre_hook(_Before(axes)) for name in inputs]
    return [*before, modules[output].register_forward_hook(_After(axes))]


def named(
    inputs: Sequence[str], output: str, d: int, down: Tensor, up: Tensor | None = None
) -> Iterator[tuple[str, str, Tensor]]:
    """Module, attribute and matrix for axis ``d``; without ``up`` the output is as long as it is to be."""
    for name in inputs:
        yield name, f"{BEFORE}{d}", down
    if up is not None:
        yield output, f"{AFTER}{d}", up


def attach_(model: nn.Module, inputs: Sequence[str], output: str, sizes: Sequence[Sequence[int]]) -> None:
    """Resample for good: ``sizes`` has, per spatial axis, the samples outside and inside."""
    modules = dict(model.named_modules(remove_duplicate=False))
    device = next((p.device for p in model.parameters()), torch.device("cpu"))
    for d, (n, inside) in enumerate(sizes):
        if inside < n:
            kept = inside // 2
            down = spectral.down(n, torch.ones(kept, dtype=torch.float64))
            for name, attribute, matrix in named(inputs, output, d, down, spectral.up(n, kept)):
                modules[name].register_buffer(attribute, matrix.to(device, copy=True), persistent=False)
    hook_(modules, inputs, output, len(sizes))
