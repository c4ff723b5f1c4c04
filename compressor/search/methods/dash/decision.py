"""What of the alternatives the budgets leave: before the search which can be had at all, after it which are taken."""

from __future__ import annotations

import numpy as np

from compressor.arrays import BoolArray, FloatArray, IntArray, UnitMask
from compressor.search.constraints.best_alternatives import best_alternatives
from compressor.search.constraints.projector import Projector

_ROUNDING = 1e-12
_LOST = 10.0  # how much less likely than the least likely what cannot be had is, for those who rank


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


def likeliest(projector: Projector, units: IntArray, probabilities: FloatArray) -> tuple[UnitMask, FloatArray]:
    """Of every site the likeliest alternative, as far as the budgets allow.

    Args:
        units, probabilities: of all alternatives, where they stand among the graph's units and how likely they are.

    Returns:
        The units kept, and the score of every unit: log-probabilities, 0 for what is no alternative.
    """
    scores = np.zeros(projector.graph.n_units)
    with np.errstate(divide="ignore"):
        likely = np.log(probabilities)
    scores[units] = np.maximum(likely, likely[np.isfinite(likely)].min() - _LOST)
    return best_alternatives(projector, projector.start, scores), scores
