"""Number of parameters; tied ones count once, buffers do not."""

from __future__ import annotations

import math
from dataclasses import dataclass

from torch import Tensor

from compressor.costs.base import CostTerm, Products
from compressor.costs.sizes import Sizes
from compressor.graph.axis import Axis
from compressor.graph.graph import Graph, Parameter


@dataclass(frozen=True)
class _Weight:
    axes: tuple[Axis, ...]
    gates: tuple[int, ...]


class Params(CostTerm):
    """Parameters of the trimmed model."""

    name = "params"
    unit = "params"

    def __init__(self, graph: Graph) -> None:
        super().__init__(graph)
        weights = [p for p in graph.parameters.values() if not p.is_buffer]
        constants = [
            math.prod(n for n, axis in zip(p.shape, p.axes, strict=True) if axis is None) / _divisor(p) for p in weights
        ]
        gates: dict[str, tuple[int, ...]] = {}
        for block in graph.blocks:
            for name in block.parameters:
                gates[name] = (*gates.get(name, ()), block.index)
        terms = [_Weight(_axes(p), gates.get(p.name, ())) for p in weights]
        self._products = Products(constants, terms, graph)

    def __call__(self, sizes: Sizes) -> Tensor:
        return self._products(sizes).sum()


def _axes(parameter: Parameter) -> tuple[Axis, ...]:
    own = tuple(axis for axis in parameter.axes if axis is not None)
    return own if parameter.scale is None else (*own, parameter.scale[0])


def _divisor(parameter: Parameter) -> int:
    return 1 if parameter.scale is None else parameter.scale[1]
