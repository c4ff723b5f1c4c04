"""The ranking of configurations after the search (section 2.3, at its end)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from compressor.costs import REPORTED_COSTS, CostTerm, build
from compressor.data import Data
from compressor.graph.groups import Alternatives
from compressor.search.constraints.constraint import hard_sizes
from compressor.search.constraints.projector import Projector
from compressor.search.methods.pooling.balance import Balance
from compressor.train import evaluate


@dataclass(eq=False)
class Rank:
    """What is known of one configuration.

    Attributes:
        configuration: its number among those that were drawn.
        weights: the weight set that it is judged with.
        average: the moving average of what that set scored in it; 0 where no set was ever trained in it.
        score: on the whole held-out split; None if it was not run there.
        lower_is_better: of the score.
        costs: what it costs, by name.
    """

    configuration: int
    weights: int
    average: float
    score: float | None = None
    lower_is_better: bool = False
    metric: str = ""
    costs: dict[str, float] = field(default_factory=dict)

    @property
    def merit(self) -> float:
        """More is better: the score, or the average where there is none."""
        if self.score is None:
            return self.average
        return -self.score if self.lower_is_better else self.score

    def row(self, choice: Alternatives, open_: list[int]) -> dict[str, Any]:
        """As JSON values."""
        return {
            "name": choice.alternatives[open_[self.configuration]].name,
            "score": self.score,
            "metric": self.metric,
            "average": self.average,
            "weight_set": self.weights,
            "costs": dict(self.costs),
        }


def rank(
    balance: Balance,
    costs: Sequence[Mapping[str, float]],
    network: Callable[[int, int], nn.Module],
    data: Data,
    loss_fn: Callable[[Any, Tensor], Tensor] | None,
    *,
    most: int,
) -> list[Rank]:
    """All configurations, the best first: by score, after those that were run by their averages.

    Each is judged with the weight set that fits it best, and with the statistics of batches.

    Args:
        costs: of each configuration, by name.
        network: of a configuration and a weight set.
        most: configurations that are scored on all of ``data.val``.
    """
    found = []
    for c, own in enumerate(costs):
        weights = balance.best(c)
        known = float(balance.averages[c, weights]) if balance.seen[c, weights] else 0.0
        found.append(Rank(c, weights, known, costs=dict(own)))
    found.sort(key=lambda each: -each.average)
    for each in found[:most]:
        metrics = evaluate(network(each.configuration, each.weights), data.val, loss_fn=loss_fn, task=data.task)
        each.score, each.metric = metrics.score, metrics.metric.name
        each.lower_is_better = metrics.metric.lower_is_better
        if metrics.lost:
            each.score = None
    return in_order(found)


def in_order(ranks: Sequence[Rank]) -> list[Rank]:
    """The best first: by score, and after all that have one by average, which is a number of another scale."""
    return sorted(ranks, key=lambda each: (each.score is None, -each.merit, -each.average))


def costs_of(projector: Projector, choice: Alternatives, open_: list[int]) -> list[dict[str, float]]:
    """Costs of each configuration by name, those of the budgets among them."""
    terms: dict[str, CostTerm] = {name: build(name, projector.graph) for name in REPORTED_COSTS}
    terms |= {constraint.name: constraint.term for constraint in projector.constraints}
    found = []
    for index in open_:
        units = projector.start.copy()
        units[choice.units] = np.arange(len(choice)) == index
        with torch.no_grad():
            sizes = hard_sizes(projector.graph, units)
            found.append({name: float(term(sizes)) for name, term in terms.items()})
    return found
