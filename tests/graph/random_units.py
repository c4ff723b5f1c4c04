"""A choice of channels at random."""

from __future__ import annotations

import numpy as np

from compressor.arrays import UnitMask
from compressor.graph import Graph


def random_units(graph: Graph, seed: int = 0) -> UnitMask:
    """Half of every group on average, and at least one of each."""
    random = np.random.default_rng(seed)
    units = graph.all_units()
    for group in graph.groups:
        kept = random.random(len(group)) < 0.5
        kept[random.integers(len(group))] = True
        units[group.units] = kept
    return units
