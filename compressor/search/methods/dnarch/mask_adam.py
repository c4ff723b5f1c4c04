"""The optimizer of masks."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch.optim import Optimizer


class MaskAdam(Optimizer):
    """Adam (Kingma and Ba, 2015) with one second moment for all parameters, the mean over every entry.

    Masks compete for one budget, so how fast each moves has to follow from what it is worth. Adam divides every entry
    by a scale of its own: masks whose gradient is quiet, because only the cost pulls at them yet, would run ahead of
    those that the task has a noisy say in, and be gone before it has one in them.

    Args:
        params: parameters or groups of them; ``lr`` is the step of an entry whose gradient is always the mean one.
    """

    def __init__(
        self, params: Any, lr: float = 0.0, betas: tuple[float, float] = (0.9, 0.999), eps: float = 1e-8
    ) -> None:
        super().__init__(params, {"lr": lr, "betas": betas, "eps": eps})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        """Move all parameters that have a gradient."""
        moved = [(group, p, p.grad) for group in self.param_groups for p in group["params"] if p.grad is not None]
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
