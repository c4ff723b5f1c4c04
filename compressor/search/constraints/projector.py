"""The last step of every search: a hard choice under all budgets, and as close to them as the grid allows."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch

from compressor.arrays import BoolArray, FloatArray, UnitMask
from compressor.costs import Sizes
from compressor.errors import UnreachableBudgetError
from compressor.graph.graph import Graph
from compressor.graph.groups import Alternatives
from compressor.search.constraints.channel_multiples import even_widths
from compressor.search.constraints.constraint import Constraint, RoundTo, hard_sizes, unreachable
from compressor.search.constraints.together import ways_together
from compressor.search.constraints.wanted import Wanted

GAP = 0.02  # of the budgets


class Projector:
    """Moves unit masks onto the grid of allowed widths and under the budgets.

    A group keeps at least one unit, and a number of units whose width is a multiple of ``round_to`` (which may be given
    by the group's name) or all of them. A kernel may lose all its rings and a branch all
    its frequencies: the centre and the constant are none of them. With None widths are even (``even.even_widths``)
    as far as they can be: groups may be narrower than one such step, and get part of one where more than ``GAP`` of
    the budgets would be left otherwise.
    Groups in ``whole`` are never reduced, blocks in it and (without ``depth``) residual blocks never removed. Where a
    method ``decides`` on some components alone (``MethodConfig.decides``; default all), groups and blocks of others
    stay as they are, but for channels chosen by hand. What the user has ``wanted`` holds for the others: groups have a
    least number of units, or just the units chosen by hand.
    ``gates`` of shape (n_blocks,) says which blocks are kept; default all.
    """

    def __init__(
        self,
        graph: Graph,
        constraints: list[Constraint],
        *,
        round_to: RoundTo = 1,
        whole: set[str] | None = None,
        depth: bool = True,
        wanted: Wanted | None = None,
        decides: frozenset[str] | None = None,
    ) -> None:
        self.graph, self.constraints = graph, constraints
        self._narrows = decides is None or "width" in decides
        self.whole = whole or set()
        self.wanted = wanted or Wanted()
        self.chosen = {g: u for g, u in self.wanted.chosen.items() if graph.groups[g].name not in self.whole}
        """Units of the groups that are chosen by hand."""
        self.held = frozenset(
            g.index
            for g in graph.groups
            if g.name in self.whole
            or (decides is not None and g.component not in decides and g.index not in self.chosen)
        )
        """Indices of the groups that stay as they are."""
        self._flexible = round_to is None
        given = even_widths(graph) if round_to is None else round_to
        multiples = [given if isinstance(given, int) else given.get(g.name, 1) for g in graph.groups]
        self.steps = np.array(
            [g.step(n) for g, n in zip(graph.groups, multiples, strict=True)],
            dtype=np.int64,
        )
        one = np.ones_like(self.steps) if self._flexible else self.steps
        least = [g.least * int(s) for g, s in zip(graph.groups, one, strict=True)]
        asked = [self._on_grid(self.wanted.least.get(g.index, 0), int(one[g.index])) for g in graph.groups]
        self.most = np.array(
            [len(self.chosen[g.index]) if g.index in self.chosen else g.most for g in graph.groups], dtype=np.int64
        )
        self.swaps = np.zeros(graph.n_units, dtype=np.bool_)
        """Units that are alternatives of a choice: they never go, but for another."""
        for choice in graph.choices:
            self.swaps[choice.units] = True
        self.smallest = np.array(
            [
                most if g.index in self.held or g.index in self.chosen else min(most, max(n, held))
                for g, most, n, held in zip(graph.groups, self.most.tolist(), least, asked, strict=True)
            ],
            dtype=np.int64,
        )
        self.removable = np.array(
            [
                (depth or b.component != "depth")
                and (decides is None or b.component in decides)
                and b.name not in self.whole
                and b.index not in self.wanted.blocks
                for b in graph.blocks
            ],
            dtype=np.bool_,
        )
        self.group_of = np.zeros(graph.n_units, dtype=np.int64)
        for group in graph.groups:
            self.group_of[group.units] = group.index

    @staticmethod
    def _on_grid(count: int, step: int) -> int:
        return -(-count // step) * step

    @property
    def free_choices(self) -> list[Alternatives]:
        """Choices of which another alternative may be taken."""
        return [c for c in self.graph.choices if c.index not in self.held and c.index not in self.chosen]

    @property
    def only_choices(self) -> bool:
        """Whether nothing but alternatives of choices can change."""
        others = [g.index for g in self.graph.groups if not isinstance(g, Alternatives)]
        fixed = self.smallest[others] == self.most[others]
        return bool(self.free_choices) and bool(fixed.all()) and not self.removable.any()

    @property
    def start(self) -> UnitMask:
        """Everything that may be kept."""
        return self.choose(self.most, np.zeros(self.graph.n_units))

    # ---- costs

    def costs(self, units: UnitMask, gates: BoolArray | None = None) -> FloatArray:
        """The cost of each constraint for a hard choice."""
        with torch.no_grad():
            sizes = hard_sizes(self.graph, units, gates)
            return np.array([float(c.term(sizes)) for c in self.constraints])

    def fits(self, units: UnitMask, gates: BoolArray | None = None) -> bool:
        return bool((self.costs(units, gates) <= self.limits).all())

    @property
    def limits(self) -> FloatArray:
        return np.array([c.limit for c in self.constraints])

    def marginal(self, units: UnitMask, gates: BoolArray | None = None) -> FloatArray:
        """How much each constraint, as a fraction of its limit, changes per unit: shape (n_constraints, n_units)."""
        return self.marginals(units, gates)[0]

    def marginals(self, units: UnitMask, gates: BoolArray | None = None) -> tuple[FloatArray, FloatArray]:
        """``marginal`` per unit and per block: (n_constraints, n_units) and (n_constraints, n_blocks)."""
        weights = torch.from_numpy(units[:-1].astype(np.float64)).requires_grad_()
        kept = np.ones(len(self.graph.blocks)) if gates is None else gates.astype(np.float64)
        blocks = torch.from_numpy(kept).requires_grad_()
        rows = []
        for constraint in self.constraints:
            value = constraint.term(Sizes(self.graph, weights, blocks)) / constraint.limit
            if value.requires_grad:
                found = torch.autograd.grad(value, [weights, blocks], allow_unused=True, materialize_grads=True)
                rows.append(torch.cat(found).numpy())
            else:  # nothing of this cost can change
                rows.append(np.zeros(self.graph.n_units + len(kept)))
        table = np.array(rows).reshape(len(rows), self.graph.n_units + len(kept))
        return table[:, : self.graph.n_units], table[:, self.graph.n_units :]

    # ---- choices

    def minimal(self, priority: FloatArray) -> UnitMask:
        """The smallest choice, keeping the units of highest priority, and of alternatives the cheapest."""
        units = self.choose(self.smallest, priority)
        if self.swaps.any():
            units = self.cheapest(units, self.fewest(units))
        return units

    def fewest(self, units: UnitMask, k: int | None = None) -> BoolArray:
        """The blocks that stay if all go that may. Of operators side by side it is the one that costs least, over all
        constraints or under number ``k``."""
        if not self.graph.parallels:
            return ~self.removable
        prices = self.marginals(units, None)[1]
        return self.graph.gates(~self.removable, -(prices.sum(axis=0) if k is None else prices[k]))

    def cheapest(self, units: UnitMask, gates: BoolArray | None = None) -> UnitMask:
        """``units`` with every choice at the alternative that costs least, over all constraints.

        If that is over one of them, and other alternatives that hold all of them are found, with these.
        """
        units = units.copy()
        prices = self.marginal(units, gates).sum(axis=0)
        for choice in self.free_choices:
            own = prices[choice.units]
            now = choice.chosen(units)
            if own.min() < own[now] - 1e-12:
                units[choice.units] = np.arange(len(choice)) == int(np.argmin(own))
        if len(self.constraints) > 1 and self.free_choices and not self.fits(units, gates):
            return self._together(units, gates)
        return units

    def _together(self, units: UnitMask, gates: BoolArray | None) -> UnitMask:
        """``units`` with alternatives under which all constraints hold, if some are found."""
        table, now = self.marginal(units, gates), np.flatnonzero(units[:-1])
        sets = [(table[:, c.units] - table[:, np.intersect1d(c.units, now)]).T for c in self.free_choices]
        for way in ways_together(1.0 - self.costs(units, gates) / self.limits, sets):
            found = units.copy()
            for choice, index in zip(self.free_choices, way.tolist(), strict=True):
                found[choice.units] = np.arange(len(choice)) == index
            if self.fits(found, gates):
                return found
        return units

    def least(self, k: int) -> tuple[float, UnitMask]:
        """The smallest that the cost of constraint ``k`` can be brought to, whatever others become, and what is kept
        then."""
        smallest = self.minimal(np.zeros(self.graph.n_units))
        fewest = self.fewest(smallest, k)
        units = self._least(smallest, fewest, k)
        return float(self.costs(units, fewest)[k]), units

    def check_reachable(self) -> None:
        """Raise ``UnreachableBudgetError`` if even the smallest choice, without any block, is over a budget."""
        smallest = self.minimal(np.zeros(self.graph.n_units))
        gates = self.fewest(smallest)
        if self.fits(smallest, gates):
            return
        for k, constraint in enumerate(self.constraints):
            cost, units = self.least(k)
            if cost > constraint.limit:
                raise self._unreachable(constraint, cost, units)
        for constraint, cost in zip(self.constraints, self.costs(smallest, gates), strict=True):
            if cost > constraint.limit:  # each alone can be met, by other alternatives
                raise self._unreachable(constraint, float(cost), smallest, others=True)

    def _unreachable(
        self, constraint: Constraint, cost: float, units: UnitMask, *, others: bool = False
    ) -> UnreachableBudgetError:
        taking = ""
        if len(self.free_choices) == 1:
            (choice,) = self.free_choices
            taking = f", {choice.name} {choice.alternatives[choice.chosen(units)].name}"
        return unreachable(
            constraint.term,
            constraint.limit,
            cost,
            self.wanted,
            others=others,
            narrows=self._narrows,
            taking=taking,
        )

    def _least(self, units: UnitMask, gates: BoolArray, k: int) -> UnitMask:
        """``units`` with the alternatives that cost least under one constraint, whatever they do to others."""
        units, prices = units.copy(), self.marginal(units, gates)[k]
        for choice in self.free_choices:
            units[choice.units] = np.arange(len(choice)) == int(np.argmin(prices[choice.units]))
        return units

    def choose(self, counts: npt.NDArray[np.int64], priority: FloatArray) -> UnitMask:
        """Keep, in each group, those chosen by hand or ``counts`` units of highest priority (ties: the earlier)."""
        units = self.graph.all_units()
        for group in self.graph.groups:
            if group.index in self.chosen:
                units[group.units] = np.isin(group.units, self.chosen[group.index])
            elif group.index in self.held and group.most < len(group):
                units[group.units] = group.as_it_is
            elif (n := int(counts[group.index])) < len(group):
                units[group.units] = np.isin(group.units, group.kept(n, priority))
        return units

    def allowed(self, counts: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """The largest allowed counts that are not above ``counts`` (and not below the smallest)."""
        floored = counts // self.steps * self.steps
        if self._flexible:
            floored = np.where(counts < self.steps, counts, floored)
        return np.where(counts >= self.most, self.most, np.maximum(floored, self.smallest))

    def reduced(self, counts: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """The allowed counts one step below."""
        less = counts - self.steps
        if self._flexible:
            less = np.where(less > 0, less, counts // 2)
        return self.allowed(np.maximum(less, self.smallest))

    def counts(self, units: UnitMask) -> npt.NDArray[np.int64]:
        return np.array([int(units[g.units].sum()) for g in self.graph.groups], dtype=np.int64)

    def restore(
        self, units: UnitMask, gates: BoolArray, priority: FloatArray, *, barred: BoolArray | None = None
    ) -> BoolArray:
        """Put back removed blocks, those of highest priority first, where every budget goes on holding. Those
        ``barred``, shape (n_blocks,), stay out."""
        gates = gates.copy()
        for b in np.argsort(-priority, kind="stable"):
            trial = gates.copy()
            trial[b] = True
            if not gates[b] and not (barred is not None and barred[b]) and self.fits(units, trial):
                gates = trial
        return gates

    def fill(
        self,
        units: UnitMask,
        priority: FloatArray,
        *,
        slack: float = 0.002,
        rounds: int = 60,
        gates: BoolArray | None = None,
        barred: set[int] | None = None,
    ) -> UnitMask:
        """Add units of highest priority per cost while every budget holds, until one is met within ``slack``.

        Groups in ``barred`` get none.
        """
        steps = self.steps
        units = self._filled(units, priority, steps, slack, rounds, gates, barred or set())
        while self._flexible and (steps > 1).any() and (1.0 - self.costs(units, gates) / self.limits).min() > GAP:
            steps = np.maximum(1, steps // 2)
            units = self._filled(units, priority, steps, GAP, rounds, gates, barred or set())
        return units

    def _filled(
        self,
        units: UnitMask,
        priority: FloatArray,
        steps: npt.NDArray[np.int64],
        slack: float,
        rounds: int,
        gates: BoolArray | None,
        barred: set[int],
    ) -> UnitMask:
        units = units.copy()
        kept = self.graph.gates(gates)
        refused = {g for block in self.graph.blocks if not kept[block.index] for g in block.groups} | barred
        refused |= set(self.chosen) | self.held | {choice.index for choice in self.graph.choices}
        for _ in range(rounds):
            gap = 1.0 - self.costs(units, gates) / self.limits
            if gap.min() <= slack:
                break
            marginal = self.marginal(units, gates)
            chunks = self._chunks(units, priority, steps, refused)
            if not chunks:
                break
            prices = [marginal[:, chunk].sum(axis=1) for _, chunk in chunks]
            worth = [
                priority[chunk].mean() / max(float(price.max()), 1e-12) * len(chunk)
                for price, (_, chunk) in zip(prices, chunks, strict=True)
            ]
            spent = np.zeros(len(gap))
            added = False
            for i in np.argsort(worth)[::-1]:
                g, chunk = chunks[i]
                if (spent + prices[i] > np.maximum(gap * 0.5, slack / 2)).any() and added:
                    continue
                trial = units.copy()
                trial[chunk] = True
                if added or not (prices[i] <= gap).all():
                    if not self.fits(trial, gates):
                        if not added:
                            refused.add(g)
                        continue
                elif not self.fits(trial, gates):
                    refused.add(g)
                    continue
                units, added = trial, True
                spent += prices[i]
            if not added:
                break
        return units

    def _chunks(
        self, units: UnitMask, priority: FloatArray, steps: npt.NDArray[np.int64], refused: set[int]
    ) -> list[tuple[int, npt.NDArray[np.int64]]]:
        """The next step of every group that can still grow."""
        found = []
        for group in self.graph.groups:
            missing = group.units[~units[group.units]]
            if not len(missing) or group.index in refused:
                continue
            order = np.argsort(-priority[missing], kind="stable")
            kept = len(group) - len(missing)
            step = int(steps[group.index])
            n = step - kept % step
            found.append((group.index, missing[order[: n if kept + n < len(group) else len(missing)]]))
        return found
