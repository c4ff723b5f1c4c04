"""Which of the things that a choice takes away are at fault, where a trim is not exact."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from compressor.arrays import BoolArray, UnitMask
from compressor.graph.graph import Graph

Change = tuple[str, int]


@dataclass
class Kept:
    """What is kept: ``units`` with the constant last entry, and ``gates``."""

    units: UnitMask
    gates: BoolArray

    def changes(self, graph: Graph) -> list[Change]:
        """The groups and blocks that lose something; a group inside a removed block goes with it."""
        gone = [block for block in graph.blocks if not self.gates[block.index]]
        inside = {g for block in gone for g in block.groups}
        groups = [g.index for g in graph.groups if g.index not in inside and not self.units[g.units].all()]
        return [*(("group", g) for g in groups), *(("block", block.index) for block in gone)]

    def without(self, graph: Graph, changes: Sequence[Change]) -> Kept:
        """The same choice, but with these groups and blocks whole."""
        return self.only(graph, [change for change in self.changes(graph) if change not in changes])

    def only(self, graph: Graph, changes: list[Change]) -> Kept:
        """The same choice, but with these changes alone."""
        units, gates = graph.all_units(), np.ones(len(graph.blocks), dtype=np.bool_)
        for kind, i in changes:
            if kind == "block":
                gates[i] = False
            for g in graph.blocks[i].groups if kind == "block" else (i,):
                units[graph.groups[g].units] = self.units[graph.groups[g].units]
        return Kept(units, graph.gates(gates))


def guilty(changes: list[Change], passes: Callable[[list[Change]], bool]) -> list[Change]:
    """The changes that fail alone, found by halving."""
    if not changes or passes(changes):
        return []
    if len(changes) == 1:
        return changes
    half = len(changes) // 2
    return guilty(changes[:half], passes) + guilty(changes[half:], passes)
