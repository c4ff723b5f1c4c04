"""Peak activation memory at batch 1: the most bytes alive at any operator, its inputs and outputs included.

Views and in-place results share their buffer; weights are not counted. The peak is a maximum over operators of sums of
products, so its gradient is that of the operator where the peak is.
"""

from __future__ import annotations

import torch
from torch import Tensor

from compressor.costs.base import CostTerm, Products
from compressor.costs.sizes import Sizes
from compressor.graph.graph import Graph


class Memory(CostTerm):
    """Bytes of the largest set of activations that are alive together."""

    name = "memory"
    unit = "bytes"

    def __init__(self, graph: Graph) -> None:
        super().__init__(graph)
        self._products = Products([s.bytes for s in graph.storages], graph.storages, graph)
        self._birth = torch.tensor([s.birth for s in graph.storages], dtype=torch.int64)
        self._after = torch.tensor([s.death + 1 for s in graph.storages], dtype=torch.int64)
        self._steps = max((s.death for s in graph.storages), default=0) + 2

    def __call__(self, sizes: Sizes) -> Tensor:
        bytes_each = self._products(sizes)
        if self._birth.device != bytes_each.device:
            self._birth, self._after = self._birth.to(bytes_each.device), self._after.to(bytes_each.device)
        change = bytes_each.new_zeros(self._steps)
        change = change.index_add(0, self._birth, bytes_each).index_add(0, self._after, -bytes_each)
        return change.cumsum(0).max()
