"""Multiply-adds of convolutions, linear layers, matrix products and attention, at batch 1.

One multiply-add is one, as fvcore counts. For convolutions, linear layers and matrix products the count of a hard
choice equals fvcore's of the trimmed model; fvcore skips fused attention, which is counted here as its two products.
"""

from __future__ import annotations

from torch import Tensor

from compressor.costs.base import CostTerm, Products
from compressor.costs.sizes import Sizes
from compressor.graph.graph import Graph


class Flops(CostTerm):
    """Multiply-adds of one forward pass."""

    name = "flops"
    unit = "macs"

    def __init__(self, graph: Graph) -> None:
        super().__init__(graph)
        self._products = Products([p.coefficient for p in graph.products], graph.products, graph)

    def __call__(self, sizes: Sizes) -> Tensor:
        return self._products(sizes).sum()

    def by_layer(self, sizes: Sizes) -> Tensor:
        """Multiply-adds of each of ``graph.products``, shape (n_products,)."""
        return self._products(sizes)
