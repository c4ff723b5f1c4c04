"""Samples of channel masks and their gradients (FiGS)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


class _LogisticSigmoid(torch.autograd.Function):
    """Forward ``sigmoid(z / tau)``; backward the slope of ``sigmoid(z / t)`` at temperature t, times t.

    The factor t makes the slope that of a function from 0 to 1 whatever the temperature.
    """

    generate_vmap_rule = True

    @staticmethod
    def forward(z: Tensor, tau: float, temperature: float) -> Tensor:
        return torch.sigmoid(z / tau)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, float, float], output: Tensor) -> None:
        z, _, ctx.temperature = inputs
        ctx.save_for_backward(torch.sigmoid(z / ctx.temperature))

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        (soft,) = ctx.saved_tensors
        return gradients[0] * soft * (1 - soft) / ctx.temperature, None, None


def sample(logits: Tensor, tau: float, temperature: float, uniform: Tensor | None = None) -> Tensor:
    """One relaxed mask per unit: P(m > 0.5) = sigmoid(logit). ``uniform`` is what it is drawn from, in [0, 1)."""
    u = (torch.rand_like(logits) if uniform is None else uniform).clamp(1e-6, 1 - 1e-6)
    mask: Tensor = _LogisticSigmoid.apply(logits + u.log() - torch.log1p(-u), tau, temperature)
    return mask
