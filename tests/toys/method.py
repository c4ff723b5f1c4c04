"""A made-up search method, as another package would add one: it decides on widths, depth and activations at once."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch

from compressor.options import Number, option
from compressor.search.base import SearchContext
from compressor.search.constraints.greedy import remove
from compressor.search.importance.rank import rank
from compressor.search.options import Method, MethodConfig
from compressor.search.result import SearchResult


@dataclass(frozen=True)
class ThriftyConfig(MethodConfig):
    """Options of the method."""

    owner: ClassVar[str] = "thrifty"

    love: float = option(1.0, Number(least=0), "How much an activation that is there is worth, in channels.")

    @property
    def decides(self) -> frozenset[str]:
        return frozenset({"width", "depth", "toy_activation"})


class Thrifty:
    """Gives up what matters least per coin."""

    def run(self, context: SearchContext) -> SearchResult:
        config = ThriftyConfig.from_options(context.options)
        projector = context.projector()
        projector.check_reachable()
        scores, blocks = rank(context, "magnitude")
        typical = float(np.median(scores[~projector.swaps])) if (~projector.swaps).any() else 1.0
        scores[projector.swaps] = 0.0
        for choice in context.graph.choices:
            scores[choice.units[choice.current]] = config.love * typical
        units, gates, history = remove(projector, scores, blocks, rounds=16)
        units = projector.fill(units, scores, gates=gates)
        return SearchResult(units, torch.from_numpy(scores), history, gates, torch.from_numpy(blocks))


METHOD = Method("thrifty", ThriftyConfig, "tests.toys.method:Thrifty", trains=False)
