"""How much lower a resolution must be before it is worth it: resampling costs something, too."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from compressor.arrays import FloatArray, IntArray
from compressor.costs import CostTerm, build
from compressor.graph.graph import Graph
from compressor.graph.groups import Group
from compressor.search.constraints.constraint import hard_sizes

# Of what the lowest resolution saves, that one must save at least. Resampling moves each value for few multiply-adds,
# so it takes longer than these say, and a little lower a resolution costs the network more than it gives.
SHARE = 0.25


def least_cuts(graph: Graph, groups: Sequence[Group], costs: Sequence[CostTerm]) -> list[int]:
    """How many frequencies of each group must go at least for multiply-adds or one of ``costs`` to fall by ``SHARE``
    of what they can, and none to rise.

    That is along the group's axis alone or, where this never pays, along all axes of its branch alike; one more than
    there are where that does not pay either. All else is taken whole.
    """
    branch = {}
    for found in graph.resolutions:
        rows = [axis.factors[1:, 0] for axis in found.axes]
        for group in groups:
            if any(units[-1] == group.units[-1] for units in rows):
                branch[group.index] = [g.units for g in groups if any(units[-1] == g.units[-1] for units in rows)]
    terms = [build("flops", graph), *costs]  # latency tables do not know what resampling takes

    def saved(rows: Sequence[IntArray], cut: int) -> FloatArray:
        units = graph.all_units()
        for row in rows:
            units[row[len(row) - min(cut, len(row) - 1) :]] = False
        sizes = hard_sizes(graph, units)
        return np.array([term.original - float(term(sizes)) for term in terms])

    def least(rows: Sequence[IntArray], most: int) -> int | None:
        wanted = SHARE * saved(rows, most)

        def pays(cut: int) -> bool:
            changes = saved(rows, cut)
            return bool(changes.min() >= 0 and ((changes > 0) & (changes >= wanted)).any())

        if not pays(most):
            return None
        low, high = 0, most  # what pays is from somewhere on
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (low, middle) if pays(middle) else (middle, high)
        return high

    found_cuts = []
    for group in groups:
        most = len(group.units) - 1
        alone = least([group.units], most) if most else None
        found_cuts.append(alone or (least(branch[group.index], most) if most else None) or len(group.units) + 1)
    return found_cuts
