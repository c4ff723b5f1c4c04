"""Use up a budget that a coarse grid leaves a gap under: give up a step in one group, and take others for it.

A step of a choice is another of its alternatives.
"""

from __future__ import annotations

import numpy as np

from compressor.arrays import BoolArray, FloatArray, UnitMask
from compressor.search.constraints.best_alternatives import better_alternatives
from compressor.search.constraints.projector import Projector


def closer(
    projector: Projector,
    units: UnitMask,
    scores: FloatArray,
    *,
    gates: BoolArray | None = None,
    slack: float = 0.005,
    tries: int = 40,
    enough: int = 4,
) -> list[UnitMask]:
    """Choices under every budget near ``units``, which is one: those within ``slack`` of a budget first.

    Args:
        scores: importance of every unit, shape (n_units,).
        tries: steps to give up, those that matter least first.
        enough: stop when so many choices are within ``slack``.

    Returns:
        Choices without repetition; within ``slack`` the most important first, then the others by their gap.
    """

    def grown(units: UnitMask, barred: set[int]) -> UnitMask:
        units = projector.fill(units, scores, gates=gates, slack=slack / 2, barred=barred)
        if projector.free_choices and projector.fits(units, gates):
            return better_alternatives(projector, units, scores, gates, frozenset(barred))
        return units

    filled = grown(units, set())
    found = {filled.tobytes(): (filled, _gap(projector, filled, gates))}
    counts = projector.counts(filled)
    sizes = np.array([len(group) for group in projector.graph.groups])
    smaller = projector.allowed(np.maximum(counts - np.where(counts == sizes, 1, projector.steps), projector.smallest))
    kept = np.where(filled[:-1], scores + 1, -1 / (scores + 1))
    lost = []
    for group in np.flatnonzero(smaller < counts).tolist():
        fewer = counts.copy()
        fewer[group] = smaller[group]
        trial = projector.choose(fewer, kept)
        lost.append((float(scores[filled[:-1] & ~trial[:-1]].sum()), group, trial))
    lost += _cheaper(projector, filled, scores, gates)
    for _, number, trial in sorted(lost, key=lambda entry: entry[:2])[:tries]:
        if sum(gap <= slack for _, gap in found.values()) >= enough:
            break
        if not projector.fits(trial, gates):
            continue
        again = grown(trial, {number})
        found.setdefault(again.tobytes(), (again, _gap(projector, again, gates)))
    order = sorted(
        found.values(),
        key=lambda entry: (entry[1] > slack, entry[1] if entry[1] > slack else -float(scores[entry[0][:-1]].sum())),
    )
    return [choice for choice, _ in order]


def _cheaper(
    projector: Projector, units: UnitMask, scores: FloatArray, gates: BoolArray | None
) -> list[tuple[float, int, UnitMask]]:
    """Choices with one alternative given up for one that makes room under the tightest budget, and is worth no more."""
    found: list[tuple[float, int, UnitMask]] = []
    if not projector.free_choices:
        return found
    tightest = int(np.argmax(projector.costs(units, gates) / projector.limits))
    price = projector.marginal(units, gates)[tightest]
    for choice in projector.free_choices:
        now = int(choice.units[choice.chosen(units)])
        for unit in choice.units[(scores[choice.units] <= scores[now]) & (price[choice.units] < price[now] - 1e-12)]:
            trial = units.copy()
            trial[now], trial[unit] = False, True
            found.append((float(scores[now] - scores[unit]), choice.index, trial))
    return found


def _gap(projector: Projector, units: UnitMask, gates: BoolArray | None) -> float:
    return float((1.0 - projector.costs(units, gates) / projector.limits).min())
