"""When a greedy search takes a cheaper alternative of a choice rather than channels.

An alternative loses the difference of the two importances, and saves the difference of the two costs. It is taken where
the same saving from the cheapest units would lose more.
"""

from __future__ import annotations

import numpy as np

from compressor.arrays import BoolArray, FloatArray, UnitMask
from compressor.search.constraints.projector import Projector


def cheapest_swap(
    projector: Projector,
    units: UnitMask,
    gates: BoolArray,
    scores: FloatArray,
    worth: FloatArray,
    excess: FloatArray,
) -> tuple[int, int] | None:
    """The unit to give up and the one to take for it, of one choice; ``None`` if channels are the better choice.

    Args:
        scores: importance of every unit, those of alternatives in the measure of channels, shape (n_units,).
        worth: importance of every unit at the current widths, shape (n_units,).
        excess: what is still to be saved under each constraint, as fractions of the limits.
    """
    if not projector.swaps.any() or not excess.any():
        return None
    weight = excess / excess.sum()
    saving = weight @ projector.marginal(units, gates)
    left = np.bincount(projector.group_of[units[:-1]], minlength=len(projector.smallest))
    fixed = left <= projector.smallest
    kept = np.flatnonzero(units[:-1] & ~projector.swaps & ~fixed[projector.group_of])
    kept = kept[saving[kept] > 1e-12]
    rate = float((worth[kept] / saving[kept]).min()) if len(kept) else np.inf  # the least that a saving costs elsewhere
    best, best_rate = None, rate
    for choice in projector.free_choices:
        now = choice.units[choice.chosen(units)]
        for unit in choice.units:
            saved = saving[now] - saving[unit]
            if unit == now or saved <= 1e-12:
                continue
            lost = max(float(scores[now] - scores[unit]), 0.0)
            if lost / saved <= best_rate:
                best, best_rate = (int(now), int(unit)), lost / saved
    return best
