"""Units and blocks that do nothing go first, however large the other weights are that they meet."""

from __future__ import annotations

import numpy as np
from torch import nn

from compressor.arrays import BoolArray, FloatArray
from compressor.graph.axis import Axis
from compressor.search.importance.base import Ranking, Scores

_AS_GOOD_AS_NOTHING = 1e-9


def without_dead(ranking: Ranking, units: FloatArray, blocks: FloatArray) -> Scores:
    """Scores by which what does nothing goes first.

    A group, or all blocks, that would be dead as a whole were never trained, as where the last scale of every branch
    starts at zero: nothing can be said of them.
    """
    graph = ranking.graph
    dead = _unwritten(ranking) | _unread(ranking)
    for group in graph.groups:
        if dead[group.units].all():
            dead[group.units] = False
    units = np.where(dead, _AS_GOOD_AS_NOTHING * units, units)
    closed = np.array([_is_closed(ranking, block.gated) for block in graph.blocks], dtype=np.bool_)
    if closed.any() and not closed.all():
        blocks = np.where(closed, _AS_GOOD_AS_NOTHING * blocks, blocks)
    return units, blocks


def _unwritten(ranking: Ranking) -> BoolArray:
    """Units that every weight writes as zeros, or that the norms behind their only writer multiply by zero."""
    n = ranking.graph.n_units
    writers, filled = np.zeros(n, dtype=np.int64), np.zeros(n, dtype=np.bool_)
    scales, scaled = np.zeros(n, dtype=np.bool_), np.zeros(n, dtype=np.bool_)
    norms = _norm_parameters(ranking.model)
    for weight in ranking.weights:
        for d, axis in enumerate(weight.axes):
            if axis is None or d in weight.reading:
                continue
            there, nonzero = _carried(axis, n), ranking.per_unit(weight.tensor.detach().abs().float(), axis, d) > 0
            if weight.tensor.dim() > 1:
                writers += there
                filled |= nonzero
            elif weight.name in norms:
                scales |= there
                scaled |= nonzero
    found: BoolArray = (writers > 0) & (~filled | ((writers == 1) & scales & ~scaled))
    return found


def _unread(ranking: Ranking) -> BoolArray:
    """Units that every reader multiplies by zero, where nothing but weights reads them; shape (n_units,)."""
    graph, n = ranking.graph, ranking.graph.n_units
    read, used, elsewhere = (np.zeros(n, dtype=np.bool_) for _ in range(3))
    by_weights = {(each.place, each.function, each.ordinal) for each in graph.computed}
    for site in graph.sites:
        by_weight = site.kind == "operand" and (site.place, site.function, site.ordinal) in by_weights
        if site.axis is not None and not by_weight:
            elsewhere |= _carried(site.axis, n)
    for weight in ranking.weights:
        for d, axis in enumerate(weight.axes):
            if axis is not None and d in weight.reading:
                read |= _carried(axis, n)
                used |= ranking.per_unit(weight.tensor.detach().abs().float(), axis, d) > 0
    return read & ~used & ~elsewhere


def _is_closed(ranking: Ranking, gated: tuple[str, ...]) -> bool:
    """Whether what a branch ends with is zero."""
    ends = [weight for weight in ranking.weights if set(weight.stored) & set(gated)]
    return bool(ends) and not any(bool(weight.tensor.detach().abs().max() > 0) for weight in ends)


def _carried(axis: Axis, n_units: int) -> BoolArray:
    found: BoolArray = np.bincount(axis.factors.ravel(), minlength=n_units + 1)[:n_units] > 0
    return found


def _norm_parameters(model: nn.Module) -> set[str]:
    """Names of the parameters of modules that scale and shift channel by channel."""
    kinds = (nn.modules.batchnorm._NormBase, nn.GroupNorm, nn.LayerNorm, nn.RMSNorm)
    return {
        f"{place}.{name}" if place else name
        for place, module in model.named_modules(remove_duplicate=False)
        if isinstance(module, kinds)
        for name, _ in module.named_parameters(recurse=False)
    }
