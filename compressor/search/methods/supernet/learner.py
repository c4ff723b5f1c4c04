"""Sandwich training with learned boundaries ("Learning Search Space Boundaries Improves Supernet Training",
algorithm 1).

In each step the largest network learns from the targets, and the smallest and some random ones learn from it, each
computed at its own size. Which networks these are is drawn from policies, which learn with the weights: from the
largest and the smallest network alone, and from what these cost (equation 4).

Beyond the paper: any traced network, several costs at once, and the weights it has to start from.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from compressor.arrays import IntArray
from compressor.costs import Sizes
from compressor.data import Data
from compressor.search.methods.supernet.config import SupernetConfig
from compressor.search.methods.supernet.policy import Policy, uniform, within
from compressor.search.methods.supernet.space import Space
from compressor.search.result import SearchResult
from compressor.search.training.learner import Learner
from compressor.search.training.subnets import Subnets
from compressor.train import objective
from compressor.train.objectives.objective import require_lesson
from compressor.train.objectives.outputs import primary_output
from compressor.train.rng import derive_seed
from compressor.train.splits import task_of

#: Of the policies: as in the paper, and what short trainings need instead.
_POLICY_LR, _TRAVEL, _POLICY_LR_MOST = 5e-4, 4.0, 0.02


def policy_lr(config: SupernetConfig, steps: int) -> float:
    """The learning rate of the policies in a training of so many steps."""
    if config.policy_lr is not None:
        return config.policy_lr
    return min(_POLICY_LR_MOST, max(_POLICY_LR, _TRAVEL / max(steps, 1)))


class SupernetLearner(Learner):
    """The sandwich as the training loop sees it.

    Args:
        lowest: lowest cost of interest by name, as shares of what the network costs; the projector's limits are the
            highest.
        steps: of the whole training.
        seed: of what the policies start from.
        select: makes the decision of what was trained.
    """

    def __init__(
        self,
        subnets: Subnets,
        space: Space,
        config: SupernetConfig,
        data: Data,
        *,
        lowest: Mapping[str, float],
        steps: int,
        seed: int,
        select: Callable[[SupernetLearner, list[dict[str, Any]]], SearchResult],
    ) -> None:
        self.subnets, self.space, self.config = subnets, space, config
        self.projector, self.graph = space.projector, space.graph
        self._select = select
        self._lesson = require_lesson(objective(task_of(data), temperature=config.lesson_temperature))
        constraints = self.projector.constraints
        self._terms = [c.term for c in constraints]
        self._highest = [min(1.0, c.limit / c.term.original) for c in constraints]
        self._lowest = [lowest.get(c.name, high) for c, high in zip(constraints, self._highest, strict=True)]
        learned = {"both": ("max", "min"), "min": ("min",), "none": ()}[config.boundaries]
        self.policies = {
            name: Policy(
                space, largest=name == "max", temperature=config.temperature, seed=derive_seed(seed, "policy", name)
            )
            for name in learned
        }
        values = [policy.values for policy in self.policies.values()]
        self._adam = torch.optim.Adam(values, lr=policy_lr(config, steps)) if values else None
        self._drawn: dict[str, Tensor] = {}  # what the largest and smallest networks of this step are drawn from
        self._largest: Tensor | None = None  # the weights of the choices of the largest one, in this part of the step
        self._random: list[IntArray] = []

    # ---- what is drawn

    def probabilities(self, name: str) -> Tensor | None:
        """Of the choices of the largest (``"max"``) or smallest (``"min"``) network, (D, K); None: not learned."""
        policy = self.policies.get(name)
        return None if policy is None else policy.probabilities().detach()

    def allowed(self) -> Tensor:
        """Which choices random networks have, shape (D, K)."""
        return within(self.space, self.probabilities("max"), self.probabilities("min"), self.config.threshold)

    def before_step(self, step: int, total_steps: int) -> None:
        self._drawn = {name: policy.uniform() for name, policy in self.policies.items()}
        allowed = self.allowed()
        self._random = [uniform(allowed) for _ in range(self.config.randoms)]

    # ---- hooks

    def optimizers(self) -> Mapping[str, torch.optim.Optimizer]:
        return {} if self._adam is None else {"policies": self._adam}

    def forward(self, model: nn.Module, inputs: Any) -> Any:
        self._largest, choices = self._draw("max")
        return self._run(inputs, choices, self._largest, dropout=True)

    def _draw(self, name: str) -> tuple[Tensor | None, IntArray]:
        """The weights of the choices of the largest or smallest network of this step, (D, K), None where they are not
        learned; and its choices, (D,)."""
        if name not in self._drawn:
            return None, self.space.largest if name == "max" else self.space.smallest
        return self.policies[name].draw(self._drawn[name])

    def penalty(self) -> Tensor | None:
        return self._hinge("max", self._largest)

    def further(self) -> Sequence[Callable[[Any, Tensor], Tensor]]:
        def smallest(inputs: Any, taught: Tensor) -> Tensor:
            weights, choices = self._draw("min")
            loss = self._lesson(primary_output(self._run(inputs, choices, weights)), taught)
            hinge = self._hinge("min", weights)
            return loss if hinge is None else loss + hinge

        def random(choices: IntArray) -> Callable[[Any, Tensor], Tensor]:
            return lambda inputs, taught: self._lesson(primary_output(self._run(inputs, choices, None)), taught)

        return [smallest, *(random(choices) for choices in self._random)]

    def _run(self, inputs: Any, choices: IntArray, weights: Tensor | None, *, dropout: bool = False) -> Any:
        units, gates = self.space.hard(choices)
        masks = None if weights is None else (lambda: self._relaxed(weights))
        return self.subnets.forward(inputs, units, gates, masks, dropout=dropout)

    def _relaxed(self, weights: Tensor) -> tuple[Tensor, Tensor]:
        device = next(self.subnets.model.parameters()).device
        units, gates = self.space.relaxed(weights)
        return units.to(device), gates.to(device)

    def _hinge(self, name: str, weights: Tensor | None) -> Tensor | None:
        """What the largest network lacks of the highest costs, or the smallest has above the lowest (equation 4)."""
        if weights is None or not self._terms or not self.config.penalty:
            return None
        units, gates = self.space.relaxed(weights.double())
        sizes = Sizes(self.graph, units, gates)
        costs = [term(sizes) / term.original for term in self._terms]
        if name == "max":
            over = [(high - cost).clamp_min(0) for cost, high in zip(costs, self._highest, strict=True)]
        else:
            over = [(cost - low).clamp_min(0) for cost, low in zip(costs, self._lowest, strict=True)]
        device = next(self.subnets.model.parameters()).device
        return self.config.penalty * torch.stack(over).sum().float().to(device)

    def log(self) -> dict[str, Any]:
        shown: dict[str, Any] = {}
        ends = {"max": self.space.largest, "min": self.space.smallest}
        for name, choices in ends.items():
            probabilities = self.probabilities(name)
            table = self.space.one_hot(choices) if probabilities is None else probabilities.double()
            shown[name], shown[f"{name}_std"] = self.space.by_kind(table)
        return {"policies": shown}

    # ---- Learner

    def decide(self, history: list[dict[str, Any]] | None = None) -> SearchResult:
        """The best subnet within the budgets, with all that no other beats."""
        self.require_finite()
        return self._select(self, history or [])
