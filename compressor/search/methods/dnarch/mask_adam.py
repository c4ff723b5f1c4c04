"""The optimizer of masks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

CHEAPEST, DEAREST = 0.1, 10.0  # prices count within these, as a gradient over next to nothing says nothing


class MaskAdam(Optimizer):
    """Adam (Kingma and Ba, 2015) with one second moment for all parameters, the mean over every entry.

    Masks compete for one budget, so how fast each moves has to follow from what it is worth. Adam divides every entry
    by a scale of its own: masks whose gradient is quiet, because only the cost pulls at them yet, would run ahead of
    those that the task has a noisy say in, and be gone before it has one in them.

    With ``prices`` it is worth for its price: a mask over a residual stream saves several times what one inside of a
    block does, and would be at its end before the task has a say in it, though every one of its channels is worth more.

    Args:
        params: parameters or groups of them; ``lr`` is the step of an entry whose gradient is always the mean one.

    Attributes:
        prices: what every entry saves of the cost, a tensor for each parameter: gradients are divided by these,
            relative to their mean. Entries that save nothing count as the mean. ``None``: gradients are taken as they
            are.
    """

    prices: Sequence[Tensor] | None = None

    def __init__(
        self, params: Any, lr: float = 0.0, betas: tuple[float, float] = (0.9, 0.999), eps: float = 1e-8
    ) -> None:
        super().__init__(params, {"lr": lr, "betas": betas, "eps": eps})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        """Move all parameters that have a gradient."""
        every = [(group, p) for group in self.param_groups for p in group["params"]]
        worth = [torch.ones_like(p) for _, p in every] if self.prices is None else relative(self.prices)
        moved = [(group, p, p.grad / w) for (group, p), w in zip(every, worth, strict=True) if p.grad is not None]
        entries = sum(p.numel() for _, p, _ in moved)
        if not entries:
            return
        square = torch.stack([gradient.square().sum() for _, _, gradient in moved]).sum() / entries
        for group, p, gradient in moved:
            state = self.state[p]
            if not state:
                state.update(step=0, exp_avg=torch.zeros_like(p), exp_avg_sq=torch.zeros_like(square))
            first, second = group["betas"]
            state["step"] += 1
            state["exp_avg"].lerp_(gradient, 1 - first)
            state["exp_avg_sq"].lerp_(square, 1 - second)
            deviation = (state["exp_avg_sq"] / (1 - second ** state["step"])).sqrt() + group["eps"]
            p.sub_(state["exp_avg"] / deviation, alpha=group["lr"] / (1 - first ** state["step"]))


def relative(prices: Sequence[Tensor]) -> list[Tensor]:
    """Prices over their mean, those of nothing as 1."""
    positive = torch.cat([price[price > 0] for price in prices])
    mean = positive.mean() if len(positive) else 1.0
    return [torch.where(price > 0, (price / mean).clamp(CHEAPEST, DEAREST), torch.ones_like(price)) for price in prices]
