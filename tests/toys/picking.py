"""A made-up search method that decides on kernels alone: it likes large ones."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch

from compressor.search.base import SearchContext
from compressor.search.constraints.best_alternatives import best_alternatives
from compressor.search.options import Method, MethodConfig
from compressor.search.result import SearchResult


@dataclass(frozen=True)
class PickingConfig(MethodConfig):
    """It has no options."""

    owner: ClassVar[str] = "picking"

    @property
    def decides(self) -> frozenset[str]:
        return frozenset({"taps"})


class Picking:
    """The best alternatives under the budgets."""

    def run(self, context: SearchContext) -> SearchResult:
        graph = context.graph
        projector = context.projector()
        projector.check_reachable()
        scores = np.ones(graph.n_units)
        for number, choice in enumerate(graph.choices):
            scores[choice.units] = np.array([0.0, 3.0, 5.0, 4.0, 6.0]) * (1 + 0.37 * number)
        units = best_alternatives(projector, graph.all_units(), scores)
        return SearchResult(units, torch.from_numpy(scores), [])


METHOD = Method("picking", PickingConfig, "tests.toys.picking:Picking", trains=False, improves=True)
