"""How sure architecture weights are: what their gradients agree on, beside how they differ from batch to batch.

The gradients of a logit have a mean and a spread. A kernel that is ahead of the one that is there while the mean is
within a few of its standard errors leads by chance; a short search has many such leads.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer


class Evidence:
    """Watches the gradients of one parameter, by what the optimizer (SGD with momentum, or AdamW) remembers of them.

    Args:
        logits: the parameter, shape (n,).
        beside: for each of its entries the index of the one that it is compared with, shape (n,).
    """

    def __init__(self, logits: nn.Parameter, beside: Tensor) -> None:
        self._logits, self._beside = logits, beside
        self._optimizer: Optimizer | None = None
        self._group: Mapping[str, Any] = {}
        self._sum, self._squares = (torch.zeros_like(logits, dtype=torch.float64) for _ in range(2))
        self._remembered = torch.zeros_like(logits)

    def follow(self, optimizer: Optimizer) -> None:
        """The optimizer that has the parameter."""
        self._optimizer = optimizer
        self._group = next(g for g in optimizer.param_groups if any(p is self._logits for p in g["params"]))

    @torch.no_grad()
    def note(self) -> None:
        """Called after each step."""
        if self._optimizer is None:
            return
        state, group = self._optimizer.state[self._logits], self._group
        # A mean of AdamW has 1 - beta of each gradient, which standard errors do not depend on.
        now, kept = (
            (state["exp_avg"], group["betas"][0])
            if "exp_avg" in state
            else (state["momentum_buffer"], group["momentum"])
        )
        step = (kept * self._remembered - now).double()  # downhill
        ahead = step - step[self._beside]
        self._sum += ahead
        self._squares += ahead.square()
        self._remembered = now.clone()

    def standard_errors(self) -> Tensor:
        """By how many standard errors each entry was pushed ahead of the one beside it, shape (n,); 0 if by none."""
        return torch.where(self._squares > 0, self._sum / self._squares.sqrt(), 0.0)

    def state_dict(self) -> dict[str, Any]:
        return {"sum": self._sum, "squares": self._squares, "remembered": self._remembered}

    def load_state_dict(self, state: dict[str, Any], /) -> None:
        self._sum, self._squares = (state[name].to(self._sum) for name in ("sum", "squares"))
        self._remembered = state["remembered"].to(self._remembered)
