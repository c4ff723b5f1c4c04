"""What a search decided."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from compressor.arrays import BoolArray, UnitMask
from compressor.graph.graph import Graph
from compressor.search.points import Point, point_tensors, read_points

_WEIGHTS, _BETWEEN = "weights", "|"  # in the names of stored tensors


@dataclass
class SearchResult:
    """The decision: ``units`` of shape (n_units + 1,), the last entry true.

    ``priority`` ranks units from first to last to be removed (low to high), so that the decision can be made again
    when some groups must stay whole. ``history`` is the cost during the search, as fractions of the original.
    """

    units: UnitMask
    priority: Tensor
    history: list[dict[str, Any]]
    gates: BoolArray | None = None
    """Which blocks are kept, shape (n_blocks,); ``None`` keeps all."""
    block_priority: Tensor | None = None
    """Ranks blocks like ``priority`` ranks units; ``None`` if the method does not decide on blocks."""
    weights: Mapping[str, Mapping[str, Mapping[str, Tensor]]] = field(default_factory=dict)
    """By choice and alternative, both by name: what parameters are with it, where the search trained weights of each
    alternative. Others are what the alternative's edits make of the model's."""

    ranking: list[dict[str, Any]] = field(default_factory=list)
    """Of a method that ranks whole networks what it ranked, the best first, as JSON values."""

    points: list[Point] = field(default_factory=list)
    """Of a method that searches for many budgets at once the networks that no other beats, cheapest first."""

    evaluated: list[dict[str, Any]] = field(default_factory=list)
    """Of such a method all networks that it tried, as ``Point.row``."""

    trained: bool = True
    """Whether a method that trains did: it does not where nothing is left to search."""

    def gates_or_all(self, graph: Graph) -> BoolArray:
        return np.ones(len(graph.blocks), dtype=np.bool_) if self.gates is None else self.gates

    def tensors(self, graph: Graph) -> dict[str, Tensor]:
        """All but the history, for storing."""
        found = {"units": torch.from_numpy(self.units), "priority": self.priority}
        found["gates"] = torch.from_numpy(self.gates_or_all(graph))
        if self.block_priority is not None:
            found["block_priority"] = self.block_priority
        found |= point_tensors(self.points)
        for choice, alternatives in self.weights.items():
            for alternative, tensors in alternatives.items():
                found |= {_BETWEEN.join((_WEIGHTS, choice, alternative, name)): t for name, t in tensors.items()}
        return found

    def noted(self) -> dict[str, Any]:
        """The rest, as JSON values."""
        return {
            "history": self.history,
            "trained": self.trained,
            "ranking": self.ranking,
            "points": [point.row() for point in self.points],
            "evaluated": self.evaluated,
        }

    @staticmethod
    def stored(noted: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> SearchResult:
        """What ``noted`` and ``tensors`` gave; entries that an earlier version did not have may be missing."""
        found = SearchResult.from_tensors(tensors, noted["history"])
        found.trained = bool(noted.get("trained", True))
        found.ranking = list(noted.get("ranking", []))
        found.points = read_points(noted.get("points", []), tensors)
        found.evaluated = list(noted.get("evaluated", []))
        return found

    @staticmethod
    def from_tensors(tensors: Mapping[str, Tensor], history: list[dict[str, Any]]) -> SearchResult:
        """What ``tensors`` gave."""
        weights: dict[str, dict[str, dict[str, Tensor]]] = {}
        for key, tensor in tensors.items():
            if key.startswith(_WEIGHTS + _BETWEEN):
                _, choice, alternative, name = key.split(_BETWEEN)
                weights.setdefault(choice, {}).setdefault(alternative, {})[name] = tensor
        return SearchResult(
            tensors["units"].numpy().astype(np.bool_),
            tensors["priority"],
            history,
            gates=tensors["gates"].numpy().astype(np.bool_),
            block_priority=tensors.get("block_priority"),
            weights=weights,
        )
