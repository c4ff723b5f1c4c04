"""One-shot search: no training. Remove, in small rounds, the units that matter least per unit of cost.

A unit's importance is scaled by its group's scarcity, ``sum(importance of all) / sum(importance of the kept)``: the
less is left of a layer, the dearer each further channel, so that no layer collapses. What it costs is the gradient of
the budgets at the current sizes, which fall as its neighbours are removed.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from compressor.graph.graph import UnitMask
from compressor.search import importance
from compressor.search.base import SearchContext, SearchResult
from compressor.search.project import FloatArray, Projector


class OneShot:
    """Options: ``importance`` ("magnitude" or "taylor"; default taylor with data), ``rounds``, ``batches``."""

    trains = False

    def run(self, context: SearchContext) -> SearchResult:
        projector = Projector(context.graph, context.constraints, round_to=context.round_to)
        projector.check_reachable()
        kind = context.options.get("importance") or ("taylor" if context.data is not None else "magnitude")
        scores = self.scores(context, kind)
        units, history = remove(projector, scores, rounds=int(context.options.get("rounds", 32)))
        units = projector.fill(units, scores)
        history.append(_entry(projector, units, len(history)))
        return SearchResult(units, torch.from_numpy(scores), history)

    def scores(self, context: SearchContext, kind: str) -> FloatArray:
        """Importance of every unit, shape (n_units,)."""
        if kind == "magnitude":
            return importance.magnitude(context.model, context.graph)
        scores = importance.taylor(
            context.model,
            context.graph,
            context.data.train,
            batches=int(context.options.get("batches", 8)),
            loss_fn=context.loss_fn,
            seed=context.seed,
        )
        # Without any gradient (a dead or frozen layer) weights decide; the term is far below any real saliency.
        tiny = 1e-12 * max(float(scores.max()), 1e-12)
        return scores + tiny * importance.magnitude(context.model, context.graph)


def shrink(projector: Projector, decision: SearchResult) -> SearchResult:
    """Decide again from an earlier decision, with the projector's whole groups restored, under the same budgets."""
    priority = decision.priority.numpy()
    scores = priority - priority.min() + 1e-6
    units = decision.units.copy()
    for group in projector.graph.groups:
        if group.name in projector.whole:
            units[group.units] = True
    units, history = remove(projector, scores, rounds=16, start=units)
    units = projector.fill(units, scores)
    return SearchResult(units, decision.priority, [*decision.history, *history], decision.gates)


def remove(
    projector: Projector, scores: FloatArray, *, rounds: int, start: UnitMask | None = None
) -> tuple[UnitMask, list[dict[str, Any]]]:
    """Remove units round by round until every budget holds."""
    units = projector.graph.all_units() if start is None else start.copy()
    history = [_entry(projector, units, 0)]
    excess_at_first = projector.costs(units) / projector.limits
    for step in range(1, 4 * rounds + 1):
        ratio = projector.costs(units) / projector.limits
        if (ratio <= 1).all():
            break
        target = np.maximum(1.0, excess_at_first - (excess_at_first - 1.0) * min(step / rounds, 1.0))
        excess = np.maximum(ratio - target, 0)
        if not excess.any():
            continue
        _remove_round(projector, units, scores, excess)
        history.append(_entry(projector, units, step))
    units = projector.choose(
        projector.allowed(projector.counts(units)), np.where(units[:-1], scores + 1, -1 / (scores + 1))
    )
    while not projector.fits(units):  # rounding to the grid, or groups at their smallest: give way evenly
        counts = projector.counts(units)
        smaller = projector.allowed(np.maximum(counts - projector.steps, projector.smallest))
        if (smaller == counts).all():
            break
        units = projector.choose(smaller, np.where(units[:-1], scores + 1, -1 / (scores + 1)))
    return units, history


def _remove_round(projector: Projector, units: UnitMask, scores: FloatArray, excess: FloatArray) -> None:
    """Remove units, in place, until the linearised costs have fallen by ``excess`` (fractions of the limits)."""
    kept = np.flatnonzero(units[:-1])
    group = projector.group_of[kept]
    n_groups = len(projector.graph.groups)
    left_of = np.bincount(group, weights=scores[kept], minlength=n_groups)
    total = np.bincount(projector.group_of, weights=scores, minlength=n_groups)
    scarcity = total / np.maximum(left_of, 1e-300)
    saving = projector.marginal(units)[:, kept]
    weight = excess / excess.sum()
    worth = scores[kept] * scarcity[group] / np.maximum(weight @ saving, 1e-15)
    order = np.argsort(worth, kind="stable")
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


def _entry(projector: Projector, units: UnitMask, step: int) -> dict[str, Any]:
    costs = projector.costs(units)
    return {
        "step": step,
        **{c.name: float(v / c.term.original) for c, v in zip(projector.constraints, costs, strict=True)},
    }
