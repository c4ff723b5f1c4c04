"""One-shot search: no training. Remove, in small rounds, the units that matter least per unit of cost.

A unit's importance is scaled by its group's scarcity, ``sum(importance of all) / sum(importance of the kept)``: the
less is left of a layer, the dearer each further channel, so that no layer collapses. What it costs is the gradient of
the budgets at the current sizes, which fall as its neighbours are removed. A whole block goes where that is cheaper
than the channels which save as much (``depth``).
"""

from __future__ import annotations

import torch

from compressor.arrays import FloatArray
from compressor.graph.graph import Graph
from compressor.search.base import SearchContext
from compressor.search.constraints.greedy import _entry, remove
from compressor.search.importance.rank import rank
from compressor.search.methods.oneshot.config import OneShotConfig
from compressor.search.result import SearchResult
from compressor.train.objectives.objective import objective
from compressor.train.splits import task_of


def default_measure(context: SearchContext) -> str:
    """What is ranked by where nobody says: the loss where it is all that a model gives (detectors), else outputs."""
    if context.data is None:
        return "magnitude"
    return "taylor" if objective(task_of(context.data)).model_loss else "sensitivity"


class OneShot:
    """The method. Its options are those of ``OneShotConfig``."""

    def run(self, context: SearchContext) -> SearchResult:
        return decided(context, OneShotConfig.from_options(context.options))


def decided(context: SearchContext, config: OneShotConfig) -> SearchResult:
    """What one shot keeps. Raises ``UnreachableBudgetError`` before any work if a budget cannot be met."""
    projector = context.projector(config.decides)
    projector.check_reachable()
    scores, blocks = rank(context, config.importance or default_measure(context), batches=config.batches)
    if context.data is None:
        blocks = _operators_last(context.graph, scores, blocks)
    units, gates, history = remove(projector, scores, blocks, rounds=config.rounds)
    units = projector.fill(units, scores, gates=gates)
    history.append(_entry(projector, units, gates, int(history[-1]["step"]) + 1))
    return SearchResult(units, torch.from_numpy(scores), history, gates, torch.from_numpy(blocks))


def _operators_last(graph: Graph, scores: FloatArray, blocks: FloatArray) -> FloatArray:
    """Scores of blocks with those of operators side by side, ``f(x) + g(x)``, above all others together: the size of
    weights says nothing of which of two unlike operators matters, and no identity is left where one goes."""
    found = blocks.copy()
    found[[index for parallel in graph.parallels for index in parallel.blocks]] = scores.sum() + blocks.sum()
    return found
