"""What a search by samples has given up for good: things that have hardly been drawn for a long time.

A thing whose keep probability stays below ``negligible`` for ``patience`` steps is *gone*: it is never drawn again and
need not be computed. What is gone is looked up every few steps only, so that the network is cut anew only now and then.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

EVERY = 25
"""Steps between two looks."""


class Fading:
    """Counts, for ``n`` things, the steps in a row that each has been negligible. Its state survives a kill."""

    def __init__(self, n: int, negligible: float, patience: int, device: torch.device) -> None:
        self.negligible, self.patience = negligible, patience
        self.gone = torch.zeros(n, dtype=torch.bool, device=device)
        self._low = torch.zeros(n, dtype=torch.int32, device=device)

    def state_dict(self) -> dict[str, Any]:
        return {"gone": self.gone, "low": self._low}

    def load_state_dict(self, state: dict[str, Any], /) -> None:
        self.gone = state["gone"].to(self.gone.device, torch.bool)
        self._low = state["low"].to(self._low.device, torch.int32)

    def step(self, probabilities: Tensor) -> Tensor | None:
        """Count one step; every few steps, those that may go now as a mask of shape (n,), if there are any."""
        low = probabilities < self.negligible
        self._low = torch.where(low, self._low + 1, torch.zeros_like(self._low))
        fading = (self._low >= self.patience) & ~self.gone
        return fading if bool(fading.any()) else None
