"""Learned boundaries of a search space (equations 3 to 7)."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from compressor.arrays import IntArray
from compressor.search.methods.supernet.space import Space

_START, _DEVIATION = 0.1, 1e-3**0.5
"""Of equation 7: the first value, and the standard deviation of a step to the next."""


class Policy:
    """Independent categorical distributions over the choices of every dimension: ``softmax(values / T)``.

    Args:
        largest: whether it begins with the most weight on the largest choices, else on the smallest.
        temperature: T.
        seed: of the values to start from.
    """

    def __init__(self, space: Space, *, largest: bool, temperature: float, seed: int = 0) -> None:
        self.valid, self.temperature = space.valid, temperature
        steps = torch.randn(space.valid.shape, generator=torch.Generator().manual_seed(seed)).abs() * _DEVIATION
        steps[:, 0] = 0
        values = steps.cumsum(1)
        if not largest:  # the row read backwards, among the choices that there are
            last = torch.from_numpy(space.largest)[:, None]
            values = values.gather(1, (last - torch.arange(values.shape[1])).clamp_min(0))
        self.values = nn.Parameter(torch.where(self.valid, _START + values, torch.zeros(())))

    @property
    def logits(self) -> Tensor:
        return (self.values / self.temperature).masked_fill(~self.valid, -torch.inf)

    def probabilities(self) -> Tensor:
        """Shape (D, K), 0 where there is no choice."""
        return self.logits.softmax(1)

    def uniform(self) -> Tensor:
        """Random numbers in [0, 1) that ``draw`` makes a sample of, shape (D, K)."""
        return torch.rand(self.values.shape)

    def draw(self, uniform: Tensor | None = None) -> tuple[Tensor, IntArray]:
        """A sample by straight-through Gumbel-softmax (Jang et al., 2017).

        Args:
            uniform: what it is made of; by default fresh numbers. The same ones give the same sample, with a gradient
                of its own.

        Returns:
            One-hot weights, shape (D, K), with the gradient of the relaxed ones; and the choices, (D,).
        """
        uniform = (self.uniform() if uniform is None else uniform).clamp(1e-9, 1 - 1e-7)
        soft = (self.logits - (-uniform.log()).log()).softmax(1)
        choices = soft.detach().argmax(1)
        hard = nn.functional.one_hot(choices, soft.shape[1]).to(soft.dtype)
        return hard + (soft - soft.detach()), choices.numpy().astype(np.int64)


def within(space: Space, highest: Tensor | None, lowest: Tensor | None, threshold: float) -> Tensor:
    """Which choices random networks have: shape (D, K).

    Those j with ``P(max >= j)`` and ``P(min <= j)`` above the threshold (equations 5 and 6; as printed, equation 6
    would leave the largest choice out). Where none is left, all between the two means.

    Args:
        highest, lowest: probabilities of the policies of the largest and smallest networks; None: no boundary.
    """
    allowed = space.valid.clone()
    if highest is not None:
        allowed &= highest.flip(1).cumsum(1).flip(1) > threshold
    if lowest is not None:
        allowed &= lowest.cumsum(1) > threshold
    none = ~allowed.any(1)
    if none.any() and highest is not None and lowest is not None:
        places = torch.arange(space.valid.shape[1], dtype=highest.dtype)
        means = torch.stack([(lowest * places).sum(1), (highest * places).sum(1)])
        first, last = means.min(0).values.floor()[:, None], means.max(0).values.ceil()[:, None]
        between = (places >= first) & (places <= last) & space.valid
        allowed = torch.where(none[:, None], between, allowed)
    return allowed


def uniform(allowed: Tensor) -> IntArray:
    """Choices drawn uniformly among those allowed, shape (D,)."""
    return torch.multinomial(allowed.double(), 1).flatten().numpy().astype(np.int64)
