"""DNArch: architecture as differentiable masks, learned together with the weights (Romero and Zeghidour, 2023).

Every group of channels, and the row of removable residual blocks, has one sigmoid mask over its ordered members
(``masks.sigmoid``), every axis of a kernel a Gaussian one over its rings (``masks.gaussian``). The mask multiplies the
network where channels are read, each block's branch and the kernels (section 3); its differentiable size goes into the
cost (appendix C.1). The search starts from the trained network at its full size, with members sorted by importance, so
that what a mask takes first matters least.

Mask values near the frontier lie between T and 1. They are part of the network that was trained: at the decision they
are multiplied into the weights, so the trimmed network needs no retraining. Where there is no weight to take them up
(arithmetic across channels, frozen weights) the masks act as 0 or 1 and only their gradient is soft.

Beyond the paper:

- Budgets instead of a fixed weight of the complexity loss: ``Multipliers`` that follow the costs, pulling both ways.
  ``penalty`` gives the paper's ``lambda (cost / budget - 1)^2`` instead, with a linear rise over ``penalty_ramp``.
- Any traced network, any cost term, any number of budgets.
- A decision that meets every budget (``decision``).
- Only what the masks keep is computed during the search (``live``).
- The decision falls before the end (``settled``): the rest of the steps train the network decided on (``trimmed``), and
  cost what its training costs. Until then masks learn in every other step, as moving them is what makes a step of a
  search dearer.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from compressor.arrays import BoolArray, FloatArray
from compressor.costs import Sizes
from compressor.errors import UsageError
from compressor.masks import Given, Masking, Pass
from compressor.masks.ordered import Rows
from compressor.masks.sigmoid import THRESHOLD
from compressor.masks.straight_through import hard
from compressor.nn.generated import computed, settle_
from compressor.nn.tensors import Region
from compressor.process.ranks import current
from compressor.search.constraints.multipliers import Multipliers
from compressor.search.constraints.projector import Projector
from compressor.search.methods.dnarch.components import component_masks
from compressor.search.methods.dnarch.config import DnarchConfig
from compressor.search.methods.dnarch.decision import Decider
from compressor.search.methods.dnarch.kernel_resampling import Coarser
from compressor.search.methods.dnarch.mask_adam import MaskAdam
from compressor.search.result import SearchResult
from compressor.search.training.decision_state import Settled
from compressor.search.training.learner import Learner
from compressor.search.training.shrinking import Live, NotLiveError
from compressor.train.splits import call_model

logger = logging.getLogger(__name__)

# While a grown network searches, aim at 90 % of each budget, because real compute exceeds ``Sizes``: a block is there
# whole or not at all, and a stream is as wide as its widest part. The decision uses the whole budget.
AIM = 0.9
# Channels whose masks are within 80 % of the threshold are computed with those that live, as they may live soon.
NEAR = 0.8


class DnarchLearner(Learner):
    """The masks, as the training loop sees them.

    Args:
        scores: importance of every unit, shape (n_units,), and of every block, shape (n_blocks,).

    Raises:
        UsageError: a component to learn that the model does not have.
        UnreachableBudgetError: a budget below what the bounds of the masks leave.
    """

    def __init__(
        self, model: nn.Module, projector: Projector, config: DnarchConfig, scores: tuple[FloatArray, FloatArray]
    ) -> None:
        self.config, self.projector, self.graph = config, projector, projector.graph
        graph, device = self.graph, next(model.parameters()).device
        self.masking, self.device = Masking(model, graph), device
        self._computed = computed(model)
        self._free, rows = component_masks(projector, config, scores, device, self._computed is not None)
        self.width, self.depth, self.kernel, self.resolution = rows
        self.settled, self.coarser = Settled(graph), Coarser(graph, self.masking.parameters)
        self._at_rest: tuple[Tensor, Tensor] | None = None  # masks, for the steps in which they do not learn
        self._decider = Decider(projector, self._free, self._rows_of, self.depth)
        parameters = [{"params": [rows.offsets], "pace": rows.pace} for rows in self.rows if len(rows)]
        self._adam = MaskAdam(parameters) if parameters else None
        with torch.no_grad():
            start = [float(c.term(self.sizes())) for c in projector.constraints]
        aim = AIM if config.grow > 1 else 1.0
        asked = [replace(c, limit=aim * c.limit) for c in projector.constraints]
        # Costs fall at about one speed, so those that need not fall far are soon where they are asked to be.
        far = max((1 - c.limit / max(cost, c.limit) for c, cost in zip(asked, start, strict=True)), default=0.0)
        self._reach = config.reach * min(1.0, 2 * far)
        self.multipliers = Multipliers(asked, start, rate=0.05 * config.every, relative_rate=0.2, use_all=True)
        # Within its budgets, a network that cannot grow has nothing to gain: it is trained as it is.
        whole = not projector.chosen and projector.fits(graph.all_units())
        self._is_search = self._computed is not None or not whole
        self.live = Live(model, graph, config.compiler, folds=True) if config.live else None
        if config.compiler is not None and current().size > 1:
            raise UsageError("On several processes a search is not compiled; leave the option compiler out.")
        if config.compiler is not None and (len(self.resolution) or (self.live is not None and self.live.exactly)):
            found = "a learned resolution" if len(self.resolution) else "arithmetic across channels"
            raise UsageError(f"With {found} every size would be compiled anew; leave the option compiler out.")

    @property
    def rows(self) -> tuple[Rows, ...]:
        """The masks by component; what a model does not have is empty."""
        return self.width, self.depth, self.kernel, self.resolution

    @property
    def _rows_of(self) -> dict[str, Rows]:
        """The masks over units by kind of group."""
        return {"channels": self.width, "kernel": self.kernel, "resolution": self.resolution}

    def sizes(self) -> Sizes:
        """Differentiable sizes."""
        units = self.width.weights() * self.kernel.weights() * self.resolution.weights()
        return Sizes(self.graph, units, self.depth.weights())

    def masks(self) -> tuple[Tensor, Tensor]:
        """Masks of units (n_units,) and blocks (n_blocks,): 0, or from T to 1."""
        return self.width.masks() * self.kernel.masks() * self.resolution.masks(), self.depth.masks()

    @torch.no_grad()
    def strengthen_(self) -> None:
        """Scale weights drawn for sums over all channels to sums over what the masks leave; frozen ones stay."""
        masks = self.width.masks()
        units = torch.cat([masks, masks.new_ones(1)])
        for mask in self.graph.masks:
            weight = self.masking.parameters[mask.parameter]
            for d, axis in mask.axes:
                if d == 0 or not weight.requires_grad:
                    continue  # scales one by one
                left = units[torch.from_numpy(axis.factors).to(self.device)].prod(1).square().sum()
                weight.mul_(float((len(axis) / left).sqrt()))

    # ---- Hooks

    def optimizers(self) -> Mapping[str, torch.optim.Optimizer]:
        return {} if self._adam is None else {"masks": self._adam}

    def param_groups(self) -> list[dict[str, Any]]:
        return [] if self._computed is None else [{"params": list(self._computed.parameters())}]

    @property
    def stateful(self) -> Mapping[str, Any]:
        states: dict[str, Any] = {"multipliers": self.multipliers, "settled": self.settled}
        if self._computed is not None:
            states["computed"] = self._computed
        return states if self.live is None else {**states, "live": self.live}

    def forward(self, model: nn.Module, inputs: Any) -> Any:
        if not self._is_search:
            return call_model(model, inputs)
        units, gates = self._now()
        if self.live is not None and self.live.works:
            kept = None if self.settled.decision is None else self._kept(self.settled.decision)
            try:
                return self.live.forward(inputs, units, gates, self._near, kept, self._weights, self._now)
            except NotLiveError as error:
                logger.warning("%s", error)
        with self._masked_by(self._now) as made:
            return made.over(call_model(model, inputs))

    def applied(self) -> AbstractContextManager[Pass | None]:
        return self._masked_by(self._now) if self._is_search else nullcontext()

    def _now(self) -> tuple[Tensor, Tensor]:
        """Masks of units and blocks in this step."""
        units, gates = self._at_rest or self.masks()
        return units.float(), gates.float()

    def _weights(self, regions: Mapping[str, Region] | None = None) -> dict[str, Tensor]:
        """Weights that are not what the model has: those of branches at a lower resolution, and computed ones.

        Computed kernels are as strong as under the first masks: a branch must not fade because its kernel gets
        smaller, nor a kernel get smaller because its branch had better fade."""
        if self._computed is None and self.settled.decision is not None:
            return {}  # they were written where they belong
        apart = self._spacings() if len(self.resolution) else {}
        if self._computed is None:
            return self.coarser.weights(apart, regions)
        weights: dict[str, Tensor] = self._computed(regions, apart) if apart else self._computed(regions)
        gains: dict[str, Tensor] = {}
        each = self.kernel.gains() if self._at_rest is None else self.kernel.gains().detach()
        for group, gain in zip(self._free["kernel"], each, strict=True):
            for name, _ in group.members:
                gains[name] = gain * gains.get(name, 1.0)
        return {name: w * gains[name].to(w) if name in gains else w for name, w in weights.items()}

    def _spacings(self) -> dict[str, tuple[float, ...]]:
        """How far apart samples are along each axis of the kernels that are at a lower resolution."""
        if self.settled.decision is not None:
            return self.coarser.spacings(self.settled.decision.units)
        return self.coarser.spacings((self.resolution.masks().detach() > 0).cpu().numpy())

    def _near(self) -> Tensor:
        """Units that live, and those of the widths that are next in line."""
        return self.width.masks(NEAR * THRESHOLD) * self.kernel.masks() * self.resolution.masks()

    def masked(self, units: Tensor, gates: Tensor) -> AbstractContextManager[Pass]:
        """Inside, the model runs with these masks; function calls and frozen weights see them as 0 or 1."""
        return self._masked_by(lambda: (units, gates))

    def _masked_by(self, masks: Callable[[], tuple[Tensor, Tensor]]) -> AbstractContextManager[Pass]:
        def given() -> Given:
            units, gates = masks()
            weights = self._weights()
            every = {**self.masking.parameters, **weights} if weights else None
            return Given(units, every, gates, (hard(units), hard(gates)))

        return self.masking.applied_by(given)

    def penalty(self) -> Tensor | None:
        if self._at_rest is not None:
            return None
        sizes = self.sizes()
        if self.config.penalty is None:
            return self.multipliers.penalty(sizes).float()
        total, constraints = sizes.units.new_zeros(()), self.projector.constraints
        costs = [constraint.term(sizes) for constraint in constraints]
        self.multipliers.note([float(cost.detach()) for cost in costs])
        for cost, constraint in zip(costs, constraints, strict=True):
            total = total + (cost / constraint.limit - 1).square()
        return (self.config.penalty * self._ramp * total).float()

    def before_step(self, step: int, total_steps: int) -> None:
        searching = self.config.searching_steps(total_steps) if self._is_search else 0
        if step >= searching:
            self.settle()
        if step >= searching or step % self.config.every:
            self._at_rest = self._at_rest or self.fixed()
            return
        self._at_rest = None
        self.resolution.turn(step // self.config.every)
        self._ramp = min(1.0, (step + 1) / max(1.0, self.config.penalty_ramp * searching))
        full = self.config.mask_lr or min(max(8 * self.config.every / searching, 0.003), 0.05)
        for group in self._adam.param_groups if self._adam is not None else ():
            ramp = min(1.0, (step + 1) / (0.05 * searching), (searching - step) / (0.2 * searching))
            group["lr"] = group["pace"] * full * ramp
        if self._adam is not None and self.config.priced:
            self._adam.prices = self._prices(self._adam)

    def _prices(self, adam: MaskAdam) -> list[Tensor]:
        """How much of the budgets each mask saves for how far it moves; what presses more counts more."""
        offsets = [p for group in adam.param_groups for p in group["params"]]
        sizes, constraints = self.sizes(), self.projector.constraints
        pressing = self.multipliers.values if any(self.multipliers.values) else [1.0] * len(constraints)
        costs = [weight * c.term(sizes) / c.limit for weight, c in zip(pressing, constraints, strict=True)]
        found = torch.autograd.grad(torch.stack(costs).sum(), offsets, materialize_grads=True)
        return [price.abs() for price in found]

    def decides_after(self, total_steps: int) -> int | None:
        """Kernels that are computed are trained by what computes them, to the end."""
        by_itself = self._is_search and self.live is not None and self._computed is None
        return self.config.searching_steps(total_steps) if by_itself else None

    def order(self) -> list[int]:
        return [int(thing) for rows in self.rows for row in rows.rows for thing in row]

    def arrange(self, order: Sequence[int]) -> None:
        lengths = [sum(map(len, rows.rows)) for rows in self.rows]
        if len(order) != sum(lengths):
            raise ValueError(f"an order of {len(order)} elements, where {sum(lengths)} have one")
        for rows, things in zip(self.rows, np.split(np.asarray(order), np.cumsum(lengths)[:-1]), strict=True):
            rows.arrange_(things)

    @property
    def learns(self) -> bool:
        return self._at_rest is None and self._is_search

    def settle(self) -> None:
        if self.settled.decision is not None:
            return
        decision = self.decide()
        if self._is_search:
            self._multiply_in(decision)
        self.settled.decision, self._at_rest = decision, None

    @property
    def call(self) -> Callable[[nn.Module, Any], Any]:
        return call_model if self.live is None else self.live.call

    @torch.no_grad()
    def fixed(self) -> tuple[Tensor, Tensor]:
        """Masks of units and blocks that do not learn; once it is decided what is kept, of just that. Frequencies are
        there or not: with some in part an axis would be resampled though it loses no samples."""
        decision = self.settled.decision
        if decision is None:
            units, gates = self.width.masks() * self.kernel.masks() * hard(self.resolution.masks()), self.depth.masks()
        else:
            units, gates = (torch.from_numpy(k).double().to(self.device) for k in self._kept(decision))
            if self._computed is not None:
                units = units * self._final(decision)[2]
        return units.float(), gates.float()

    def after_step(self, step: int, total_steps: int) -> None:
        if self._at_rest is not None:
            return
        reach = min(self._reach, 1 - self.config.settle)
        self.multipliers.progress = (step + 1) / max(1.0, reach * total_steps)
        if self.config.penalty is None:
            self.multipliers.step()
        for rows in self.rows:
            rows.clamp_()

    def step_values(self) -> Mapping[str, float]:
        return self.multipliers.of_limits() if self.settled.decision is None else {}

    def log(self) -> dict[str, Any]:
        decision, constraints = self.settled.decision, self.projector.constraints
        if decision is None:
            return self.multipliers.shares()
        costs = self.projector.costs(decision.units, decision.gates_or_all(self.graph)).tolist()
        return {c.name: cost / c.term.original for c, cost in zip(constraints, costs, strict=True)}

    # ---- decision

    def decide(self, history: list[dict[str, Any]] | None = None) -> SearchResult:
        """The hard choice; once it is made it stays."""
        if self.settled.decision is not None:
            return replace(self.settled.decision, history=history or [])
        self.require_finite()
        units = _finite(torch.stack([r.logits() for r in self._rows_of.values()]).amin(0).detach().cpu())
        blocks = _finite(self.depth.logits().detach().cpu())
        kept, gates = self._decider.choose(units.numpy(), blocks.numpy())
        return SearchResult(kept, units, history or [], gates, blocks)

    def fold_(self, decision: SearchResult) -> None:
        """Multiply the masks of what is kept into the model's weights, those that are not there yet."""
        if self.settled.decision is None:
            self._multiply_in(decision)
            self.settled.decision = decision
        if self._computed is not None:
            settle_(self.masking.model, self._weights())
            self.masking.fold_(self._final(decision)[2])

    def _multiply_in(self, decision: SearchResult) -> None:
        """All masks, but those over kernels that are computed anew for every step."""
        width, gates, kernel = self._final(decision)
        if self._computed is None:
            self.coarser.settle_(self.coarser.spacings(decision.units))
        self.masking.fold_(width if self._computed is not None else width * kernel, gates)

    def _final(self, decision: SearchResult) -> tuple[Tensor, Tensor, Tensor]:
        """Masks over channels, blocks and kernels as they stay; what was let in last has T. Frequencies are whole."""
        self.resolution.hold_(decision.units)
        width, gates, kernel = (torch.sigmoid(r.logits().detach()).clamp_min(THRESHOLD) for r in self.rows[:3])
        return width, gates, kernel

    def _kept(self, decision: SearchResult) -> tuple[BoolArray, BoolArray]:
        return decision.units[:-1], decision.gates_or_all(self.graph)


def _finite(logits: Tensor) -> Tensor:
    return logits.clamp(-500, 500)  # exp stays finite
