"""``Sizes``: how big each searchable thing is right now, as differentiable numbers.

A search method turns its own parameters into the probability (or weight) of every unit and the gate of every block;
a cost term turns the lengths of axes that follow into a number. Neither knows the other.
"""

from __future__ import annotations

from functools import cached_property
from weakref import WeakKeyDictionary

import numpy as np
import torch
from torch import Tensor

from compressor.graph.axis import Axis
from compressor.graph.gated import gated_units
from compressor.graph.graph import Graph


class SizeTable:
    """Index tensors that turn unit weights into axis lengths in a few vectorised operations.

    ``length(axis) = sum_i prod_k weight[factors[i, k]]``: exact for hard masks, and the expectation for independent
    units.
    """

    def __init__(self, graph: Graph) -> None:
        n, k = graph.n_units, max((a.factors.shape[1] for a in graph.axes), default=1)
        rows = [np.pad(a.factors, ((0, 0), (0, k - a.factors.shape[1])), constant_values=n) for a in graph.axes]
        self.factors = torch.from_numpy(np.concatenate(rows) if rows else np.zeros((0, k), dtype=np.int64))
        self.axis_of = torch.from_numpy(np.repeat(np.arange(len(rows)), [len(r) for r in rows]))
        self.n_axes, self.n_units = len(rows), n

    def to(self, device: torch.device) -> SizeTable:
        if self.factors.device != device:
            self.factors, self.axis_of = self.factors.to(device), self.axis_of.to(device)
        return self

    def lengths(self, units: Tensor) -> Tensor:
        """Axis lengths, shape (n_axes,), for unit weights of shape (n_units,)."""
        extended = torch.cat([units, units.new_ones(1)])
        each = extended[self.factors[:, 0]]
        for column in range(1, self.factors.shape[1]):
            each = each * extended[self.factors[:, column]]
        return units.new_zeros(self.n_axes).index_add(0, self.axis_of, each)


_tables: WeakKeyDictionary[Graph, SizeTable] = WeakKeyDictionary()


def size_table(graph: Graph) -> SizeTable:
    """The graph's table, built once, and again where choices were added since."""
    table = _tables.get(graph)
    if table is None or (table.n_axes, table.n_units) != (len(graph.axes), graph.n_units):
        table = _tables[graph] = SizeTable(graph)
    return table


class Sizes:
    """Sizes of one graph.

    Args:
        graph: what the sizes are of.
        units: weight of every unit in [0, 1], shape (n_units,); 0 or 1 for a hard choice.
        gates: weight of every block in [0, 1], shape (n_blocks,); default all 1.

    Numbers are float64, so that counts of multiply-adds stay exact.
    """

    def __init__(self, graph: Graph, units: Tensor, gates: Tensor | None = None) -> None:
        self.graph = graph
        self.units = gated_units(graph, units.double(), None if gates is None else gates.double())
        self.gates = self.units.new_ones(len(graph.blocks)) if gates is None else gates.double()

    @classmethod
    def full(cls, graph: Graph) -> Sizes:
        """Everything kept, and of choices what the network has."""
        return cls(graph, torch.from_numpy(graph.all_units()[:-1].astype(np.float64)))

    @cached_property
    def lengths(self) -> Tensor:
        """Length of every axis, shape (n_axes,), float64."""
        return size_table(self.graph).to(self.units.device).lengths(self.units)

    def length(self, axis: Axis) -> Tensor:
        """Length of one axis, a scalar."""
        return self.lengths[axis.index]
