"""Residual blocks: ``y = x + branch(x)`` where the branch can be taken out without changing a shape."""

from __future__ import annotations

from compressor.graph.graph import Graph
from compressor.graph.record import Node, Value


def find_blocks(graph: Graph, nodes: list[Node], outputs: list[Value]) -> None:
    """Fill ``graph.blocks`` and the gates of what lies in them."""
