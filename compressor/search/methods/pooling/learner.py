"""Where to pool: the balanced mixture of supernets (Javan, Toews and Pedersoli, 2023).

A configuration says before which layers the resolution falls. M weight sets share the configurations: in each step a
configuration is drawn uniformly, a weight set by how well it has done there, and that set is trained in it (section
2.3). What it then scores on held-out samples moves its average (equation 2).

Beyond the paper: configurations over a budget are never drawn; any network that is traced, from the weights it has.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from compressor.data import Data
from compressor.errors import TrainingError
from compressor.graph.groups import Alternatives
from compressor.nn.tensors import state
from compressor.search.constraints.projector import Projector
from compressor.search.methods.pooling.balance import Balance
from compressor.search.methods.pooling.config import PoolingConfig
from compressor.search.methods.pooling.decision import Rank, costs_of, rank
from compressor.search.methods.pooling.held_out import HeldOut
from compressor.search.methods.pooling.weight_sets import WeightSets
from compressor.search.result import SearchResult
from compressor.search.training.learner import Learner
from compressor.train.splits import call_model

#: Configurations whose probabilities are noted in the history: more are no picture.
_NOTED = 64
#: Configurations whose weights are handed over: where the first is too slow on the device, another is taken.
_KEPT = 3


class PoolingLearner(Learner):
    """The weight sets and their balance, as the training loop sees them.

    Args:
        choice: the configurations, and what the network has.
        open_: which of its alternatives are drawn.
        data: ``data.val`` is what weight sets are scored on.
    """

    def __init__(
        self,
        sets: WeightSets,
        projector: Projector,
        choice: Alternatives,
        open_: Sequence[int],
        config: PoolingConfig,
        data: Data,
        held_out: HeldOut,
        loss_fn: Any,
    ) -> None:
        self.sets, self.projector, self.graph = sets, projector, projector.graph
        self.choice, self.open, self.config, self.data = choice, list(open_), config, data
        self.balance = Balance(len(self.open), config.mixtures, beta=config.beta, linear=config.temperature == "linear")
        self._held_out, self._loss_fn = held_out, loss_fn
        self._drawn = (0, 0)
        self.ranks: list[Rank] = []

    # ---- Hooks

    def param_groups(self) -> Sequence[dict[str, Any]]:
        others = self.sets.parameters()
        return ({"params": others, "weight_decay": self.config.weight_decay},) if others else ()

    def follows(self, optimizer: Optimizer) -> None:
        if self.sets.shelf is not None:
            self.sets.shelf.follow(optimizer)

    @property
    def stateful(self) -> Mapping[str, Any]:
        return {"balance": self.balance}

    def before_step(self, step: int, total_steps: int) -> None:
        configuration = int(torch.randint(len(self.open), ()))
        shares = torch.from_numpy(self.balance.of_sets(configuration))
        self._drawn = configuration, int(torch.multinomial(shares, 1))

    def forward(self, model: nn.Module, inputs: Any) -> Any:
        return call_model(self._network(*self._drawn), inputs)

    def after_step(self, step: int, total_steps: int) -> None:
        configuration, weights = self._drawn
        found = self._held_out.score(self._network(configuration, weights), step)
        self.balance.note(configuration, weights, found, (step + 1) / total_steps)

    def log(self) -> dict[str, Any]:
        shares = {}
        for configuration, index in enumerate(self.open[:_NOTED]):
            row = self.balance.of_sets(configuration)
            shares[self.choice.alternatives[index].name] = [round(float(p), 4) for p in row]
        return {"temperature": self.balance.tau, "weight_sets": shares}

    # ---- Learner

    def require_finite(self) -> None:
        if not all(bool(torch.isfinite(p).all()) for each in self.sets.sets for p in each.parameters()):
            raise TrainingError(
                "Configurations cannot be ranked, as weights have become NaN or infinite. Search again with a lower "
                "rate (--pooling.lr), and look for NaN in the data."
            )

    def decide(self, history: list[dict[str, Any]] | None = None) -> SearchResult:
        """The configuration that does best on the held-out split."""
        self.require_finite()
        costs = costs_of(self.projector, self.choice, self.open)
        self.ranks = rank(self.balance, costs, self._network, self.data, self._loss_fn, most=self.config.evaluated)
        return self.taking(self.ranks[0], history or [])

    def taking(
        self, taken: Rank, history: list[dict[str, Any]], weights: Mapping[str, Tensor] | None = None
    ) -> SearchResult:
        """The decision for one configuration, with its weights: those given, else those of its set."""
        known = {self._name(each): self._weights(each) for each in (taken, *self.ranks[:_KEPT])}
        if weights is not None:
            known[self._name(taken)] = weights
        units = self.projector.start.copy()
        units[self.choice.units] = [i == self.open[taken.configuration] for i in range(len(self.choice))]
        priority = torch.zeros(self.graph.n_units, dtype=torch.float64)
        rows = [each.row(self.choice, self.open) | {"chosen": each is taken} for each in self.ranks]
        for place, each in enumerate(self.ranks):  # what is not ranked has 0, and goes before all that is
            priority[self.choice.units[self.open[each.configuration]]] = len(self.ranks) - place
        return SearchResult(
            units,
            priority,
            history,
            weights={self.choice.name: known},
            ranking=rows,
        )

    def _name(self, rank: Rank) -> str:
        return self.choice.alternatives[self.open[rank.configuration]].name

    def _weights(self, rank: Rank) -> Mapping[str, Tensor]:
        return {name: t.clone() for name, t in state(self.sets.sets[rank.weights]).items()}

    def _network(self, configuration: int, weights: int) -> nn.Module:
        return self.sets.network(self.open[configuration], weights)
