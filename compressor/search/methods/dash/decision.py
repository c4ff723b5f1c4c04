"""What of the alternatives the budgets leave: before the search which can be had at all, after it which are taken."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from compressor.arrays import BoolArray, FloatArray, UnitMask
from compressor.search.constraints.best_alternatives import best_alternatives
from compressor.search.constraints.projector import Projector

_ROUNDING = 1e-12
_PREFERRED = 1e-4  # of log-probability: what costs as much as what the network has, over what is as good
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


def likeliest(
    projector: Projector, probabilities: Sequence[FloatArray], evidence: Sequence[FloatArray], doubt: float
) -> tuple[UnitMask, FloatArray]:
    """Of every site the likeliest alternative, as far as that is beyond chance and the budgets allow.

    Args:
        probabilities: of each choice how likely its alternatives are.
        evidence, doubt: see ``leads``.

    Returns:
        The units kept, and the score of every unit, its lead; 0 for what is no alternative.
    """
    scores = np.zeros(projector.graph.n_units)
    prices = projector.marginal(projector.start).sum(axis=0)
    for choice, likely, sure in zip(projector.graph.choices, probabilities, evidence, strict=True):
        own = prices[choice.units]
        scores[choice.units] = leads(likely, sure, doubt, choice.current)
        if likely[choice.current] > 0:  # of what is as good, what costs about as much
            scores[choice.units] -= _PREFERRED * np.abs(own - own[choice.current]) / max(np.ptp(own), 1e-12)
    return best_alternatives(projector, projector.start, scores), scores


def leads(probabilities: FloatArray, evidence: FloatArray, doubt: float, current: int) -> FloatArray:
    """How far each alternative of a choice is ahead of what the network has, in log-probability, beyond chance.

    What is within ``doubt`` counts as as good: it may be taken where it is cheaper and another site has use for what is
    saved; else what the network has is preferred. Where that cannot be had there is nothing to compare
    with, and the likeliest is ahead.

    Args:
        evidence: by how many standard errors each was pushed ahead of what the network has.
        doubt: standard errors that may be chance.
    """
    with np.errstate(divide="ignore"):
        likely: FloatArray = np.log(probabilities)
    open_ = np.isfinite(likely)
    lead = np.where(open_, likely - likely[current if open_[current] else likely.argmax()], 0.0)
    if open_[current]:
        sure = np.maximum(evidence * np.sign(lead), 1e-12)
        lead = lead * np.maximum(1.0 - doubt / sure, 0.0) - _PREFERRED / 100
        lead[current] = 0.0
    lead[~open_] = lead[open_].min() - _LOST
    return lead
