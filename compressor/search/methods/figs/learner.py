"""FiGS: stochastic channel masks, learned together with the weights (Wan et al., 2021).

Every unit has a logit ``nu`` with keep probability ``pi = sigmoid(nu)``, ``nu`` starting at 2.5. At each step one mask
per unit is drawn from the Logistic-Sigmoid distribution, ``m = sigmoid((nu + log u - log(1 - u)) / tau)`` (section
3.1), and the task loss sees the masked network. The cost is that of the *expected* sizes, ``sum(pi)`` per group (eq.
4), with each layer counted once.

Beyond the paper:

- Budgets instead of a fixed regularisation strength: each budget has a multiplier that grows while its expected cost is
  above a target falling from where it starts to the budget, and shrinks below (``Multipliers``).
- ``gradient_temperature``: with ``tau = 0.001`` the relaxed mask passes a gradient in about one draw in a thousand,
  which takes the paper's hundred epochs to average out. The forward pass keeps ``tau``; the backward pass takes the
  slope of the same sample at a higher temperature. Setting it to ``tau`` gives the paper's estimator.
- Residual blocks have a logit each, like units: the sample multiplies the branch, the probability its expected cost.
- What has had a negligible probability for long is gone for good (``fading``) and not computed any more (``live``), nor
  is, once settled, what was decided against (``trimmed``): steps get cheaper as the network gets smaller.
- ``settle``: after that share of the steps the decision is made, and the remaining steps train the weights of the
  network that was decided on instead of those of random ones around it.
- The decision takes ``floor(sum pi)`` units of highest probability from each group and the blocks of probability above
  a half, with all logits shifted by one constant so that the budgets are met, and then fills the gap that rounding
  leaves.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping
from contextlib import AbstractContextManager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from compressor.arrays import BoolArray
from compressor.costs import Sizes
from compressor.masks import Given, Masking, Pass
from compressor.search.constraints.multipliers import Multipliers
from compressor.search.constraints.projector import Projector
from compressor.search.methods.figs.config import LOGITS, FigsConfig
from compressor.search.methods.figs.decision import _Decision, decide
from compressor.search.methods.figs.fading import EVERY, Fading
from compressor.search.methods.figs.operators import Operators
from compressor.search.methods.figs.sampling import sample
from compressor.search.result import SearchResult
from compressor.search.training.learner import Learner
from compressor.search.training.shrinking import Live, NotLiveError
from compressor.train.rng import derive_seed, outside_transforms
from compressor.train.splits import call_model

logger = logging.getLogger(__name__)


class FigsLearner(Learner):
    """The masks, as the training loop sees them. Also usable in a user's own loop (``compressor.prepare``)."""

    def __init__(self, model: nn.Module, projector: Projector, config: FigsConfig) -> None:
        self.config, self.projector, self.graph = config, projector, projector.graph
        self.masking = Masking(model, self.graph)
        self.device = next(model.parameters()).device
        self._held = torch.from_numpy(self._whole()).to(self.device)
        self._group_of = torch.from_numpy(projector.group_of).to(self.device)
        self.decision = _Decision()
        self.live = Live(model, self.graph) if config.live else None
        start_at = [config.start] * self.graph.n_units + [config.block_start] * len(self.graph.blocks)
        self.logits = nn.Parameter(torch.tensor(start_at, device=self.device))  # units, then blocks
        self.depth = bool(projector.removable.any())
        self.operators = Operators(projector)
        self._step = 0
        self._uniform: Tensor | None = None  # what the masks of this step are drawn from
        self.fading = Fading(len(start_at), config.negligible, config.patience, self.device)
        self.fading.gone[: self.graph.n_units] = torch.from_numpy(~projector.start[:-1]).to(self.device)
        with torch.no_grad():
            self.logits.masked_fill_(self.fading.gone, -LOGITS)
        self._adam = torch.optim.Adam([self.logits], lr=config.logit_lr)
        with torch.no_grad():
            start = [float(c.term(self.expected())) for c in projector.constraints]
        self.multipliers = Multipliers(projector.constraints, start)

    def _whole(self) -> np.ndarray[Any, np.dtype[np.bool_]]:
        """Units that no width on the grid can do without, and blocks that may not go."""
        held = np.concatenate([np.zeros(self.graph.n_units, dtype=np.bool_), ~self.projector.removable])
        for group in self.graph.groups:
            if self.projector.smallest[group.index] == self.projector.most[group.index]:
                held[group.units] = True
        held[: self.graph.n_units] &= self.projector.start[:-1]
        return held

    def probabilities(self) -> Tensor:
        """Keep probability of every unit and every block, shape (n_units + n_blocks,)."""
        free = torch.where(self.fading.gone, torch.zeros_like(self.logits), torch.sigmoid(self.logits))
        return torch.where(self._held, torch.ones_like(self.logits), free)

    def expected(self) -> Sizes:
        """Expected sizes."""
        every = self.probabilities()
        return Sizes(self.graph, every[: self.graph.n_units], every[self.graph.n_units :])

    # ---- Hooks

    def optimizers(self) -> Mapping[str, torch.optim.Optimizer]:
        return {"logits": self._adam}

    @property
    def stateful(self) -> Mapping[str, Any]:
        states = {"multipliers": self.multipliers, "decision": self.decision, "fading": self.fading}
        return states if self.live is None else {**states, "live": self.live}

    def masks(self, uniform: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """The masks drawn from ``uniform``, by default a fresh sample, or the decided ones: units (n_units,) and blocks
        (n_blocks,)."""
        masks = self.decision.masks
        if masks is not None:
            masks = masks.to(self.device)
            return masks[: self.graph.n_units], masks[self.graph.n_units :]
        drawn = sample(self.logits, self.config.tau, self.config.gradient_temperature, uniform)
        drawn = torch.where(self._held, torch.ones_like(drawn), drawn)
        drawn = torch.where(self.fading.gone, torch.zeros_like(drawn), drawn)
        units, gates, empty = drawn[: self.graph.n_units], drawn[self.graph.n_units :], frozenset[int]()
        if self.operators.groups:
            logits = self.logits[self.graph.n_units :]
            counts = (self._drawn(units) > 0.5).long().cpu().numpy()
            gates, empty = self.operators.drawn(counts, gates, logits)
        return self._never_empty(units, empty), gates

    def before_step(self, step: int, total_steps: int) -> None:
        self._step, self._uniform = step, None
        if self.seed is None:
            self._uniform = self._draw()

    def applied(self) -> AbstractContextManager[Pass]:
        if self._uniform is None:
            with outside_transforms():
                self._uniform = self._draw()
        return self._by(self._uniform)

    def _draw(self) -> Tensor | None:
        """What the masks of a step are drawn from; None once it is decided what is kept."""
        if self.decision.masks is not None:
            return None
        if self.seed is None:
            return torch.rand_like(self.logits)
        generator = torch.Generator().manual_seed(derive_seed(self.seed, "masks", self._step))
        return torch.rand(self.logits.shape, generator=generator, dtype=self.logits.dtype).to(self.logits)

    def _by(self, uniform: Tensor | None) -> AbstractContextManager[Pass]:
        def given() -> Given:
            units, gates = self.masks(uniform)
            return Given(units, gates=gates if self.depth else None)

        return self.masking.applied_by(given)

    def _drawn(self, units: Tensor) -> Tensor:
        """The sum of the masks of each group, shape (n_groups,)."""
        none = units.new_zeros(len(self.graph.groups))
        return none.index_add(0, self._group_of, units.detach())

    def _never_empty(self, units: Tensor, but: frozenset[int] = frozenset()) -> Tensor:
        """Give a group that drew all zeros its most probable unit: the trimmed network will have one too. Groups in
        ``but`` may be empty, as their operators go."""
        drawn = self._drawn(units)
        if bool((drawn > 0.5).all()):
            return units
        for g in (g for g in torch.nonzero(drawn <= 0.5).flatten().tolist() if g not in but):
            members = torch.from_numpy(self.graph.groups[g].units).to(units.device)
            best = members[self.logits.detach()[members].argmax()]
            units = units.index_fill(0, best.reshape(1), 1.0)
        return units

    def forward(self, model: nn.Module, inputs: Any) -> Any:
        uniform = self._draw() if self._uniform is None else self._uniform
        kept = self._left()
        if self.live is not None and self.live.works and kept is not None:
            units, gates = self.masks(uniform)
            try:
                return self.live.forward(inputs, units, gates, kept=kept, anew=lambda: self.masks(uniform))
            except NotLiveError as error:
                logger.warning("%s", error)
        with self._by(uniform) as made:
            return made.over(call_model(model, inputs))

    def _left(self) -> tuple[BoolArray, BoolArray] | None:
        """Units and blocks that are not gone; ``None`` if the whole network has to be computed."""
        masks, n = self.decision.masks, self.graph.n_units
        if masks is None and (self.live is None or self.live.exactly or not bool(self.fading.gone.any())):
            return None
        left = (~self.fading.gone if masks is None else masks > 0).cpu().numpy()
        return left[:n], left[n:]

    def penalty(self) -> Tensor | None:
        if self.decision.masks is not None:
            return None
        return self.multipliers.penalty(self.expected()).to(self.logits.dtype)

    def after_step(self, step: int, total_steps: int) -> None:
        if self.decision.masks is not None:
            return
        self.multipliers.progress = (step + 1) / max(1.0, self.config.reach * total_steps)
        self.multipliers.step()
        with torch.no_grad():
            self.logits.clamp_(-LOGITS, LOGITS)
        if self.config.patience:
            self._fade(step)
        if self.config.settle < 1 and step + 1 >= self.config.settle * total_steps:
            self.settle()

    def decides_after(self, total_steps: int) -> int | None:
        if self.live is None or self.config.settle >= 1:
            return None
        return max(1, math.ceil(self.config.settle * total_steps))

    @torch.no_grad()
    def _fade(self, step: int) -> None:
        """Let go what has faded, as far as each group keeps its smallest width."""
        fading = self.fading.step(self.probabilities())
        if fading is None or step % EVERY:
            return
        n = self.graph.n_units
        gone = (self.fading.gone | fading).cpu().numpy()
        counts = np.maximum(self.projector.counts(~gone[:n]), self.projector.smallest)
        gone[:n] &= ~self.projector.choose(counts, self.logits[:n].double().cpu().numpy())[:n]
        self.fading.gone = torch.from_numpy(gone).to(self.device)
        self.logits.masked_fill_(self.fading.gone, -LOGITS)

    def settle(self) -> None:
        """Make the decision: from now on the masks are hard and stay."""
        found = self.decide()
        chosen = np.concatenate([found.units[:-1], found.gates_or_all(self.graph)])
        self.decision.masks = torch.from_numpy(chosen).to(self.device, self.logits.dtype)
        costs = self.projector.costs(found.units, found.gates_or_all(self.graph))
        self.multipliers.note(costs.tolist())

    def step_values(self) -> Mapping[str, float]:
        return self.multipliers.of_limits() if self.learns else {}

    def log(self) -> dict[str, Any]:
        return self.multipliers.shares()

    @property
    def learns(self) -> bool:
        return self.decision.masks is None

    def decide(self, history: list[dict[str, Any]] | None = None) -> SearchResult:
        """The hard choice: ``floor(sum pi)`` per group with logits shifted so that all budgets hold, then filled up."""
        self.require_finite()
        logits = self.logits.detach().double().cpu()
        units, blocks = logits[: self.graph.n_units], logits[self.graph.n_units :]
        kept, gates = decide(self.projector, units, blocks)
        return SearchResult(kept, units, history or [], gates, blocks)
