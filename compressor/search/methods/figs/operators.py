"""Operators side by side: one with an intermediate or output of no channels is deselected (FiGS, section 3.3).

Groups of channels elsewhere keep one channel at least. Those of an operator that may go as a whole may come to none,
and then the operator goes. Of operators that would all go one stays: the trimmed network has one, too.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from compressor.arrays import BoolArray, IntArray
from compressor.search.constraints.projector import Projector


class Operators:
    """The operators of a graph that may go, with the groups of channels that they have alone."""

    def __init__(self, projector: Projector) -> None:
        graph = self.graph = projector.graph
        free = {g.index for g in graph.groups if g.ranked and projector.smallest[g.index] < projector.most[g.index]}
        self.groups: dict[int, list[int]] = {}
        for block in graph.blocks:
            if block.beside and projector.removable[block.index]:
                within = {g for other in graph.blocks if block.index in other.inside for g in other.groups}
                self.groups[block.index] = [g for g in block.groups if g in free and g not in within]
        self.emptied = frozenset(g for groups in self.groups.values() for g in groups)

    def closed(self, counts: IntArray) -> BoolArray:
        """Which blocks go as a group of theirs has no channel left; ``counts`` by group, shape (n_groups,)."""
        found = np.zeros(len(self.graph.blocks), dtype=np.bool_)
        for block, groups in self.groups.items():
            found[block] = any(counts[g] < 1 for g in groups)
        return found

    def drawn(self, counts: IntArray, gates: Tensor, logits: Tensor) -> tuple[Tensor, frozenset[int]]:
        """Gates of a sample, and the groups that may stay empty in it.

        Args:
            counts: channels drawn by group, shape (n_groups,).
            gates: as they were drawn, shape (n_blocks,).
            logits: of the blocks, shape (n_blocks,): the likeliest operator is there if none was drawn.
        """
        closed = self.closed(counts)
        wished = (gates.detach() > 0.5).cpu().numpy() & ~closed
        there = self.graph.gates(wished, logits.detach().cpu().numpy())
        opened = there & ~wished
        if closed.any():
            gates = gates.masked_fill(torch.from_numpy(closed).to(gates.device), 0.0)
        if opened.any():
            gates = gates.masked_fill(torch.from_numpy(opened).to(gates.device), 1.0)
        back = {g for block in np.flatnonzero(opened).tolist() for g in self.groups.get(block, ())}
        return gates, self.emptied - back
