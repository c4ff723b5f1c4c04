"""Terms of cost of one graph over the units and blocks of another, of a network with the same groups."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from compressor.errors import UnsupportedModelError
from compressor.graph.axis import Axis
from compressor.graph.graph import Graph, ProductTerm, Storage
from compressor.graph.groups import Alternatives
from compressor.graph.operators import Extent, Operator


class Translation:
    """From ``source`` to ``target``; axes that ``target`` lacks are added to it. Blocks are those of the same name.

    Raises:
        UnsupportedModelError: they have other groups.
    """

    def __init__(self, source: Graph, target: Graph) -> None:
        mine = [group for group in target.groups if not isinstance(group, Alternatives)]
        named = [(group.name, len(group)) for group in source.groups]
        if named != [(group.name, len(group)) for group in mine]:
            raise UnsupportedModelError("it has other groups of channels when it pools elsewhere")
        self._source, self._target = source, target
        self._units = np.full(source.n_units + 1, target.n_units, dtype=np.int64)
        for group, own in zip(source.groups, mine, strict=True):
            self._units[group.units] = own.units
        named_blocks = {block.name: block.index for block in target.blocks}
        self._blocks = [named_blocks.get(block.name, -1) for block in source.blocks]
        self._known = {axis.factors.tobytes(): axis for axis in target.axes}
        self._axes: dict[int, Axis] = {}

    def products(self) -> list[ProductTerm]:
        return [
            replace(p, axes=self._over(p.axes), unless_full=self._over(p.unless_full), gates=self._gates(p.gates))
            for p in self._source.products
        ]

    def storages(self) -> list[Storage]:
        return [
            replace(s, axes=self._over(s.axes), unless_full=self._over(s.unless_full), gates=self._gates(s.gates))
            for s in self._source.storages
        ]

    def operators(self) -> list[Operator]:
        return [self._operator(operator) for operator in self._source.operators]

    def _operator(self, operator: Operator) -> Operator:
        return replace(
            operator,
            channels_in=self._extent(operator.channels_in),
            channels_out=self._extent(operator.channels_out),
            copies=self._extent(operator.copies),
            taps=self._extent(operator.taps),
            cropped=None if operator.cropped is None else self._operator(operator.cropped),
        )

    def _extent(self, extent: Extent) -> Extent:
        return replace(extent, axes=self._over(extent.axes), gates=self._gates(extent.gates))

    def _gates(self, gates: tuple[int, ...]) -> tuple[int, ...]:
        return tuple(self._blocks[gate] for gate in gates if self._blocks[gate] >= 0)

    def _over(self, axes: tuple[Axis, ...]) -> tuple[Axis, ...]:
        return tuple(self._axis(axis) for axis in axes)

    def _axis(self, axis: Axis) -> Axis:
        if axis.index not in self._axes:
            factors = self._units[axis.factors]
            key = factors.tobytes()
            if key not in self._known or self._known[key].factors.shape != factors.shape:
                self._known[key] = Axis(len(self._target.axes), factors)
                self._target.axes.append(self._known[key])
            self._axes[axis.index] = self._known[key]
        return self._axes[axis.index]
