"""Units that are there with a block alone: the channels of an operator that is concatenated with others.

Everything that looks at units and gates together looks at them through these functions: where the gate of such a block
is zero, so are its units, wherever they occur.
"""

from __future__ import annotations

from weakref import WeakKeyDictionary

import numpy as np
import torch
from torch import Tensor

from compressor.arrays import BoolArray, UnitMask
from compressor.graph.graph import Graph

_owners: WeakKeyDictionary[Graph, tuple[Tensor, Tensor]] = WeakKeyDictionary()


def gated_units(graph: Graph, units: Tensor, gates: Tensor | None) -> Tensor:
    """``units`` of shape (n_units,) times the gates, of shape (n_blocks,), of the blocks that they are there with."""
    if gates is None or not any(block.outputs for block in graph.blocks):
        return units
    where, factors = _table(graph)
    where, factors = where.to(units.device), factors.to(units.device)
    every = torch.cat([gates.to(units.dtype), units.new_ones(1)])
    factor = every[factors[:, 0]]
    for column in range(1, factors.shape[1]):
        factor = factor * every[factors[:, column]]
    return units * units.new_ones(len(units)).index_put((where,), factor)


def kept_units(graph: Graph, units: UnitMask, gates: BoolArray | None) -> UnitMask:
    """``units``, of any length from n_units on, without those of blocks that are gone; ``gates`` as they will be."""
    gone = [block for block in graph.blocks if block.outputs and gates is not None and not gates[block.index]]
    if not gone:
        return units
    found = np.array(units)
    for block in gone:
        found[list(block.outputs)] = False
    return found


def _table(graph: Graph) -> tuple[Tensor, Tensor]:
    """The units with owners, and their blocks, shape (n, k), padded with the number of blocks."""
    known = _owners.get(graph)
    if known is None:
        owners: dict[int, list[int]] = {}
        for block in graph.blocks:
            for unit in block.outputs:
                owners.setdefault(unit, []).append(block.index)
        most = max(map(len, owners.values()))
        rows = [own + [len(graph.blocks)] * (most - len(own)) for own in owners.values()]
        known = _owners[graph] = torch.tensor(list(owners)), torch.tensor(rows)
    return known
