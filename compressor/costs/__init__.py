"""Cost terms, each a differentiable function of ``Sizes``. New ones register under ``compressor.costs``."""

from __future__ import annotations

from compressor.budget import COSTS
from compressor.costs.base import CostTerm
from compressor.costs.sizes import Sizes
from compressor.graph.graph import Graph

REPORTED_COSTS = ("flops", "params", "memory")


def build(name: str, graph: Graph) -> CostTerm:
    """The cost term ``name`` for a graph. Raises ``UsageError`` for an unknown name."""
    term: CostTerm = COSTS.get(name)(graph)
    return term


__all__ = ["COSTS", "REPORTED_COSTS", "CostTerm", "Sizes", "build"]
