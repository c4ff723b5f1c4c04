"""Importance by whatever was asked for: the name of a measure, or a function of the user's own."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from compressor.search.base import SearchContext
from compressor.search.importance import MEASURES
from compressor.search.importance.base import Measure, Ranking, Scores, checked
from compressor.search.importance.by_function import by_function


def rank(context: SearchContext, measure: str | Callable[..., Any], *, batches: int = 8) -> Scores:
    """Importance of every unit, shape (n_units,), and of every block, shape (n_blocks,); finite and not negative.

    Raises:
        UsageError: an unknown name, a measure that needs what is not there, or a function that gives something else.
    """
    ranking = Ranking(context, batches)
    if not isinstance(measure, str):
        return by_function(measure, ranking)
    found: Measure = MEASURES.get(measure)
    units, blocks = found(ranking)
    graph = context.graph
    return checked(measure, units, (graph.n_units,)), checked(measure, blocks, (len(graph.blocks),))
