"""Take away what matters least per unit of cost, round by round."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from compressor.arrays import BoolArray, FloatArray, UnitMask
from compressor.search.constraints.alternatives_choice import cheapest_swap
from compressor.search.constraints.best_alternatives import best_alternatives, better_alternatives
from compressor.search.constraints.block_choice import cheapest_block
from compressor.search.constraints.projector import Projector
from compressor.search.result import SearchResult


def shrink(projector: Projector, decision: SearchResult) -> SearchResult:
    """Decide again from an earlier decision, with the projector's whole groups restored, under the same budgets.

    Alternatives of choices are taken by their priority, as far as there is room.
    """
    priority = decision.priority.numpy()
    scores = priority - priority.min() + 1e-6
    units = decision.units.copy()
    for group in projector.graph.groups:
        if group.index in projector.held:
            units[group.units] = group.as_it_is
    gates = decision.gates_or_all(projector.graph) | ~projector.removable
    if projector.only_choices:
        units = best_alternatives(projector, units, scores, gates)
        return replace(decision, units=units, gates=gates)
    blocks = None  # what is gone already is enough, as a rule: give only channels as long as there are any
    units, gates, history = remove(projector, scores, blocks, rounds=16, start=units, gates=gates)
    units = projector.fill(units, scores, gates=gates)
    if projector.free_choices and projector.fits(units, gates):
        units = better_alternatives(projector, units, scores, gates)
    history = [*decision.history, *history]
    return replace(decision, units=units, history=history, gates=gates)


def remove(
    projector: Projector,
    scores: FloatArray,
    blocks: FloatArray | None,
    *,
    rounds: int,
    start: UnitMask | None = None,
    gates: BoolArray | None = None,
) -> tuple[UnitMask, BoolArray, list[dict[str, Any]]]:
    """Remove units and blocks round by round until every budget holds.

    Args:
        scores: importance of every unit, shape (n_units,).
        blocks: importance of every block, shape (n_blocks,); without it blocks go only when channels do not suffice.
        start: units to start from; default all that may be kept.
        gates: blocks to start from; default all.
    """
    graph = projector.graph
    units = projector.start if start is None else start.copy()
    gates = graph.gates(gates)
    last_resort = np.ones(len(graph.blocks)) if blocks is None else blocks
    history = [_entry(projector, units, gates, 0)]
    excess_at_first = projector.costs(units, gates) / projector.limits
    for step in range(1, 4 * rounds + 1):
        ratio = projector.costs(units, gates) / projector.limits
        if (ratio <= 1).all():
            break
        target = np.maximum(1.0, excess_at_first - (excess_at_first - 1.0) * min(step / rounds, 1.0))
        excess = np.maximum(ratio - target, 0)
        if not excess.any():
            continue
        worth = _worth(projector, units, scores)
        block = None
        if blocks is not None:
            block = cheapest_block(projector, units, gates, blocks, worth, np.maximum(ratio - 1, 0))
        swap = cheapest_swap(projector, units, gates, scores, worth, np.maximum(ratio - 1, 0))
        if swap is not None:
            _swap(units, *swap)
        elif block is not None:
            gates[block] = False
        else:
            _remove_round(projector, units, gates, worth, excess)
        history.append(_entry(projector, units, gates, step))
    units = projector.choose(
        projector.allowed(projector.counts(units)), np.where(units[:-1], scores + 1, -1 / (scores + 1))
    )
    while not projector.fits(units, gates):  # rounding to the grid, or groups at their smallest: give way evenly
        counts = projector.counts(units)
        smaller = projector.reduced(counts)
        if (smaller == counts).all() and projector.swaps.any():
            cheaper = projector.cheapest(units, gates)
            if (cheaper != units).any():
                units = cheaper
                continue
        if (smaller == counts).all():
            excess = np.maximum(projector.costs(units, gates) / projector.limits - 1, 0)
            block = cheapest_block(projector, units, gates, last_resort, scores, excess, forced=True)
            if block is None:
                break
            gates[block] = False
            continue
        units = projector.choose(smaller, np.where(units[:-1], scores + 1, -1 / (scores + 1)))
    gates = graph.gates(projector.restore(units, gates, last_resort))
    return units, gates, history


def _swap(units: UnitMask, old: int, new: int) -> None:
    units[old], units[new] = False, True


def _worth(projector: Projector, units: UnitMask, scores: FloatArray) -> FloatArray:
    """Importance of every unit times the scarcity of its group, shape (n_units,)."""
    n_groups = len(projector.graph.groups)
    left = np.bincount(projector.group_of, weights=scores * units[:-1], minlength=n_groups)
    total = np.bincount(projector.group_of, weights=scores, minlength=n_groups)
    scarcity: FloatArray = total / np.maximum(left, 1e-300)
    return scores * scarcity[projector.group_of]


def _remove_round(
    projector: Projector, units: UnitMask, gates: BoolArray, worth: FloatArray, excess: FloatArray
) -> None:
    """Remove units, in place, until the linearised costs have fallen by ``excess`` (fractions of the limits)."""
    kept = np.flatnonzero(units[:-1] & ~projector.swaps)
    group = projector.group_of[kept]
    n_groups = len(projector.graph.groups)
    saving = projector.marginal(units, gates)[:, kept]
    weight = excess / excess.sum()
    order = np.argsort(worth[kept] / np.maximum(weight @ saving, 1e-15), kind="stable")
    # Within a round a group loses at most a quarter of what it has, and never goes below its smallest.
    left = np.bincount(group, minlength=n_groups)
    quota = np.minimum(left - projector.smallest, np.maximum(left // 4, 1))
    by_group = np.argsort(group[order], kind="stable")
    starts = np.searchsorted(group[order][by_group], np.arange(n_groups))
    rank = np.empty(len(order), dtype=np.int64)
    rank[by_group] = np.arange(len(order)) - starts[group[order][by_group]]
    eligible = order[rank < quota[group[order]]]
    saved = np.cumsum(saving[:, eligible], axis=1)
    enough = (saved >= excess[:, None] * (1 - 1e-12)).all(axis=0)
    n = int(np.argmax(enough)) + 1 if enough.any() else len(eligible)
    units[kept[eligible[:n]]] = False


def _entry(projector: Projector, units: UnitMask, gates: BoolArray, step: int) -> dict[str, Any]:
    costs = projector.costs(units, gates)
    return {
        "step": step,
        **{c.name: float(v / c.term.original) for c, v in zip(projector.constraints, costs, strict=True)},
    }
