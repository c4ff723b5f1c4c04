"""What a search decided."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from compressor.arrays import BoolArray, UnitMask
from compressor.graph.graph import Graph


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

    def gates_or_all(self, graph: Graph) -> BoolArray:
        return np.ones(len(graph.blocks), dtype=np.bool_) if self.gates is None else self.gates

    def tensors(self, graph: Graph) -> dict[str, Tensor]:
        """All but the history, for storing."""
        found = {"units": torch.from_numpy(self.units), "priority": self.priority}
        found["gates"] = torch.from_numpy(self.gates_or_all(graph))
        if self.block_priority is not None:
            found["block_priority"] = self.block_priority
        return found

    @staticmethod
    def from_tensors(tensors: Mapping[str, Tensor], history: list[dict[str, Any]]) -> SearchResult:
        """What ``tensors`` gave."""
        return SearchResult(
            tensors["units"].numpy().astype(np.bool_),
            tensors["priority"],
            history,
            gates=tensors["gates"].numpy().astype(np.bool_),
            block_priority=tensors.get("block_priority"),
        )
