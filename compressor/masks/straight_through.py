"""Estimators whose gradient is not the derivative of their value."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


def capped(value: Tensor, largest: Tensor | float) -> Tensor:
    """``min(value, largest)`` that passes the gradient on as if there were no cap (DNArch, appendix E.1).

    A plain minimum would stop the gradient at the cap, and what has grown too large could never shrink again.
    """
    excess = (value - largest).clamp_min(0).detach()
    return value - excess


def floored(value: Tensor, least: Tensor | float) -> Tensor:
    """``max(value, least)`` with the gradient passed on, likewise."""
    return value + (least - value).clamp_min(0).detach()


def hard(soft: Tensor) -> Tensor:
    """1 where ``soft`` is above zero, else 0, with the gradient of ``soft``."""
    return (soft > 0).to(soft.dtype) + (soft - soft.detach())


class _Fill(torch.autograd.Function):
    generate_vmap_rule = True

    @staticmethod
    def forward(sizes: Tensor, owner: Tensor, rank: Tensor, counts: Tensor) -> Tensor:
        return (sizes[owner] - rank).clamp(0, 1)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        sizes, owner, rank, counts = inputs
        frontier = torch.minimum(sizes.floor(), counts - 1).long()
        ctx.save_for_backward(owner, rank == frontier[owner])
        ctx.n = len(sizes)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None, None]:
        owner, at_frontier = ctx.saved_tensors
        gradient = gradients[0]
        return gradient.new_zeros(ctx.n).index_add(0, owner, gradient * at_frontier), None, None, None


def fill(sizes: Tensor, owner: Tensor, rank: Tensor, counts: Tensor) -> Tensor:
    """``clamp(size - rank, 0, 1)`` for every place: weights of ordered places that add up to the sizes.

    The gradient of a size is that of its place at the frontier, at a full size that of the last place (the derivative
    of the clamp is zero or undefined there).

    Args:
        sizes: shape (n_sizes,), each in [0, its count].
        owner: which size a place belongs to, shape (n_places,).
        rank: position of a place among those of its size, from 0, shape (n_places,).
        counts: places of each size, shape (n_sizes,).
    """
    weights: Tensor = _Fill.apply(sizes, owner, rank, counts)
    return weights
