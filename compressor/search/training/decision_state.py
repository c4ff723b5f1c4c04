"""A decision that a search makes before its end, so that the rest of its steps train just the network decided on."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from compressor.graph.graph import Graph
from compressor.search.result import SearchResult


class Settled:
    """Holds the decision, if it is made. Its state survives a kill."""

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.decision: SearchResult | None = None

    def state_dict(self) -> dict[str, Any]:
        return {} if self.decision is None else self.decision.tensors(self.graph)

    def load_state_dict(self, state: Mapping[str, Tensor], /) -> None:
        self.decision = SearchResult.from_tensors(state, []) if state else None
