"""From masks to a hard choice under every budget (DNArch, section 3.3: what has a mask >= T on the grid is kept).

The rule alone meets a budget only roughly. So the masks are shifted by one constant, over widths, and over blocks,
kernels and frequencies too where those do not suffice, until every budget holds; what is left of it is filled up.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from compressor.arrays import BoolArray, FloatArray, IntArray, UnitMask
from compressor.graph.groups import Group
from compressor.masks.ordered import Rows
from compressor.search.constraints.constraint import unreachable
from compressor.search.constraints.projector import Projector

WIDEST_GAP = 0.03  # of a budget that a decision may leave, if another can do better


class Decider:
    """Decides for one network.

    Args:
        free: the groups of units that masks act on, by kind.
        rows_of: their masks, by kind.
        depth: the masks over blocks.

    Raises:
        UnreachableBudgetError: a budget below what the bounds of the masks leave.
    """

    def __init__(
        self, projector: Projector, free: Mapping[str, Sequence[Group]], rows_of: Mapping[str, Rows], depth: Rows
    ) -> None:
        self.projector, self.free, self.rows_of, self.depth = projector, free, rows_of, depth
        self._bound()

    def _bound(self) -> None:
        """Tell the projector what the bounds leave at least, and check that it is enough."""
        projector = self.projector
        least = {kind: rows.least() for kind, rows in self.rows_of.items()}
        projector.smallest = projector.allowed(self._counts(least))
        smallest = projector.minimal(np.zeros(projector.graph.n_units))
        costs = projector.costs(smallest, self._gates(self.depth.least()))
        for constraint, cost in zip(projector.constraints, costs, strict=True):
            if cost > constraint.limit:
                raise unreachable(constraint.term, constraint.limit, float(cost), projector.wanted)

    def choose(self, units: FloatArray, blocks: FloatArray) -> tuple[UnitMask, BoolArray]:
        """The choice; logits of masks of units, shape (n_units,), and of blocks, (n_blocks,), say what goes last."""
        choices = [self._fitted(units, blocks, np.zeros(len(self.depth), np.int64))]
        if self._gap(*choices[0]) > WIDEST_GAP:  # the rest is whole; one block more, and widths that make room for it
            full = [len(row) for row in self.depth.rows]
            more = np.eye(len(self.depth), dtype=np.int64)[self.depth.kept() < full]
            choices += [self._fitted(units, blocks, extra) for extra in more]
        return min(choices, key=lambda choice: self._gap(*choice))

    def _gap(self, units: UnitMask, gates: BoolArray) -> float:
        """What is left of the tightest budget, as a share of it; infinite if one is missed."""
        gap = float((1 - self.projector.costs(units, gates) / self.projector.limits).min())
        return gap if self.projector.fits(units, gates) else np.inf

    def _fitted(self, units: FloatArray, blocks: FloatArray, extra: IntArray) -> tuple[UnitMask, BoolArray]:
        """The decision with ``extra`` blocks in the rows of the depth."""
        projector = self.projector

        def shifted(width: float, rest: float) -> tuple[UnitMask, BoolArray]:
            kept = {k: rows.kept(width if k == "channels" else rest) for k, rows in self.rows_of.items()}
            counts = projector.allowed(self._counts(kept))
            return projector.choose(counts, units), self._gates(self.depth.kept(rest) + extra)

        # Blocks, rings and frequencies are large steps: they move with the widths only where those cannot do alone.
        least, most = -3.0, 3.0
        both = not projector.fits(*shifted(least, 0.0))
        low, high = least, most
        if projector.fits(*shifted(most, most if both else 0.0)):
            low = most
        for _ in range(40 if low < high else 0):
            middle = (low + high) / 2
            low, high = (middle, high) if projector.fits(*shifted(middle, both * middle)) else (low, middle)
        kept, gates = shifted(low, both * low)
        gates = projector.graph.gates(projector.restore(kept, gates, blocks))
        return self._filled(kept, gates, 1 / (1 + np.exp(-units))), gates

    def _filled(self, kept: UnitMask, gates: BoolArray, priority: FloatArray) -> UnitMask:
        """What is left of the budgets goes to widths, if they are learned, and then to rings of kernels, but to those
        alone that a budget counts: all others would come back for nothing. Where widths are learned frequencies stay
        as they are, as a resolution near the full one saves less than resampling costs."""
        projector = self.projector
        price = projector.marginal(kept, gates).max(0)
        barred = {g.index for g in self.free["kernel"] if price[g.units].max() <= 0}
        if len(self.rows_of["channels"]):
            barred |= {g.index for g in self.free["resolution"]}
            kernels = {g.index for g in self.free["kernel"]}
            kept = projector.fill(kept, priority, gates=gates, barred=barred | kernels)
        return projector.fill(kept, priority, gates=gates, barred=barred)

    def _counts(self, kept: Mapping[str, IntArray]) -> IntArray:
        """How many units of each group, from those of each row by kind."""
        counts = np.array([len(g) for g in self.projector.graph.groups], dtype=np.int64)
        for kind, each in kept.items():
            for group, n in zip(self.free[kind], each, strict=True):
                counts[group.index] = n
        return counts

    def _gates(self, counts: IntArray) -> BoolArray:
        gates = np.ones(len(self.projector.graph.blocks), dtype=np.bool_)
        for row, n in zip(self.depth.rows, counts, strict=True):
            gates[row[n:]] = False
        return self.projector.graph.gates(gates)
