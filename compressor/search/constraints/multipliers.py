"""Budgets as penalties whose weights find themselves."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from compressor.budget import OF_LIMIT
from compressor.costs import Sizes
from compressor.search.constraints.constraint import Constraint


class Multipliers:
    """Lagrange multipliers that follow the budgets' violations, any number at once.

    ``penalty = sum_k lambda_k * ratio_k + rho / 2 * relu(ratio_k - 1)^2`` with ``ratio = cost / target``; after each
    step ``lambda_k`` moves by ``max(rate, relative_rate * lambda_k) * (ratio_k - 1)`` and stays at or above zero. The
    target falls linearly to the limit.

    Args:
        start: the costs at the beginning.
        use_all: also pull up while every cost is below its target: ``rho / 2 * relu(1 - max_k ratio_k)^2``.
    """

    def __init__(
        self,
        constraints: Sequence[Constraint],
        start: Sequence[float],
        *,
        rate: float = 0.05,
        relative_rate: float = 0.0,
        rho: float = 10.0,
        use_all: bool = False,
    ) -> None:
        self.constraints, self.start, self.rate, self.rho = list(constraints), list(start), rate, rho
        self.relative_rate, self.use_all = relative_rate, use_all
        self.values = [0.0] * len(self.constraints)
        self.progress = 0.0
        self.costs = list(self.start)
        self.ratios = [cost / self.target(k) for k, cost in enumerate(self.costs)]

    def target(self, k: int) -> float:
        """What constraint k is asked to cost now."""
        limit = self.constraints[k].limit
        return limit + max(self.start[k] - limit, 0.0) * (1 - min(self.progress, 1.0))

    def note(self, costs: Sequence[float]) -> None:
        """Take these as the costs, and for ``step`` what they are of the targets now."""
        self.costs = [float(cost) for cost in costs]
        self.ratios = [cost / self.target(k) for k, cost in enumerate(self.costs)]

    def shares(self) -> dict[str, float]:
        """The costs last noted by name, as fractions of the original's."""
        return {c.name: cost / c.term.original for c, cost in zip(self.constraints, self.costs, strict=True)}

    def of_limits(self) -> dict[str, float]:
        """The costs last noted as fractions of their limits, ``{"flops_of_limit": 1.2}``: 1 is what was asked for."""
        return {f"{c.name}{OF_LIMIT}": cost / c.limit for c, cost in zip(self.constraints, self.costs, strict=True)}

    def penalty(self, sizes: Sizes) -> Tensor:
        """What to add to the loss; also notes the costs for ``step``."""
        total = sizes.units.new_zeros(())
        costs = [constraint.term(sizes) for constraint in self.constraints]
        ratios = [cost / self.target(k) for k, cost in enumerate(costs)]
        self.costs = [float(cost.detach()) for cost in costs]
        self.ratios = [float(ratio.detach()) for ratio in ratios]
        for k, ratio in enumerate(ratios):
            total = total + self.values[k] * ratio + self.rho / 2 * torch.relu(ratio - 1).square()
        if self.use_all and ratios:
            total = total + self.rho / 2 * torch.relu(1 - torch.stack(ratios).max()).square()
        return total

    def step(self) -> None:
        """Move the multipliers, once per step."""
        for k, ratio in enumerate(self.ratios):
            rate = max(self.rate, self.relative_rate * self.values[k])
            self.values[k] = max(0.0, self.values[k] + rate * (ratio - 1))

    def state_dict(self) -> dict[str, Any]:
        return {
            "values": list(self.values),
            "ratios": list(self.ratios),
            "progress": self.progress,
            "costs": list(self.costs),
        }

    def load_state_dict(self, state: dict[str, Any], /) -> None:
        self.values, self.ratios = [float(v) for v in state["values"]], [float(r) for r in state["ratios"]]
        self.progress = float(state["progress"])
        # What earlier versions stored has no costs: about what they were.
        given = state.get("costs") or [ratio * self.target(k) for k, ratio in enumerate(self.ratios)]
        self.costs = [float(cost) for cost in given]
