"""Which alternatives a network within the budgets can have at all."""

from __future__ import annotations

import numpy as np

from compressor.arrays import BoolArray
from compressor.search.constraints.projector import Projector

_ROUNDING = 1e-12


def affordable(projector: Projector) -> list[BoolArray]:
    """For every choice which of its alternatives fit beside the cheapest of all others, shapes (len(choice),).

    Costs of different choices add up, as they belong to different modules, so a gradient says what a swap costs.
    """
    cheapest = projector.cheapest(projector.start)
    ratios = projector.costs(cheapest) / projector.limits
    prices = projector.marginal(cheapest)
    found = []
    for choice in projector.graph.choices:
        held = choice.index in projector.chosen or choice.name in projector.whole
        now = int(choice.units[choice.chosen(cheapest)])
        more = prices[:, choice.units] - prices[:, [now]]
        open_: BoolArray = np.all(ratios[:, None] + more <= 1 + _ROUNDING, axis=0)
        open_[choice.chosen(cheapest)] = True
        found.append(np.asarray(choice.units == now) if held else open_)
    return found
