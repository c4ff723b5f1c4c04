"""Cost terms: a name, a unit, and a differentiable function of ``Sizes``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import ClassVar, Protocol

import numpy as np
import torch
from torch import Tensor

from compressor.arrays import IntArray
from compressor.costs.sizes import Sizes
from compressor.graph.axis import Axis
from compressor.graph.graph import Graph


class Term(Protocol):
    """A coefficient times the lengths of axes, inside blocks."""

    @property
    def axes(self) -> tuple[Axis, ...]: ...
    @property
    def gates(self) -> tuple[int, ...]: ...


class CostTerm:
    """Base of all cost terms; ``cost(sizes)`` gives a float64 scalar in ``unit``."""

    name: ClassVar[str]
    unit: ClassVar[str]

    def __init__(self, graph: Graph) -> None:
        self.graph = graph

    def __call__(self, sizes: Sizes) -> Tensor:
        raise NotImplementedError

    @cached_property
    def original(self) -> float:
        """The cost with everything kept."""
        return float(self(Sizes.full(self.graph)))


class Products:
    """``value[t] = coefficient[t] * prod(lengths of axes[t]) * prod(gates[t])``, for many terms at once.

    ``unless_full[t]`` (see ``ProductTerm``) adds the factor ``1 - prod(weights of the last units of these axes)``.

    Units that are there with a block alone (``Block.outputs``) carry its gate already: where all of an axis are, the
    gate is no other factor.

    Two axes of one term that share units are not independent: E[m^2] = p, not p^2. Their product gets the missing
    ``sum n1 n2 (p - p^2)`` over shared units, which is zero for a hard choice.
    """

    def __init__(self, coefficients: Sequence[float], terms: Sequence[Term], graph: Graph) -> None:
        self.coefficient = torch.tensor(coefficients, dtype=torch.float64)
        self.axes = _padded([[a.index for a in t.axes] for t in terms], len(graph.axes))
        owned = {block.index: frozenset(block.outputs) for block in graph.blocks if block.outputs}
        self.gates = _padded([_gates(t, owned) for t in terms], len(graph.blocks))
        unless = [[int(a.factors[-1, 0]) for a in getattr(t, "unless_full", ())] for t in terms]
        self.last = _padded(unless, graph.n_units) if any(unless) else None
        self.conditional = torch.tensor([float(bool(row)) for row in unless], dtype=torch.float64)
        shared = [_shared_units(t, graph.n_units) for t in terms]
        self.term = torch.tensor([t for t, (units, _) in enumerate(shared) for _ in units], dtype=torch.int64)
        self.unit = torch.tensor([int(u) for units, _ in shared for u in units], dtype=torch.int64)
        self.times = torch.tensor([float(n) for _, times in shared for n in times], dtype=torch.float64)

    def __call__(self, sizes: Sizes) -> Tensor:
        """All values, shape (n_terms,)."""
        device = sizes.units.device
        if self.coefficient.device != device:
            for name in ("coefficient", "axes", "gates", "term", "unit", "times", "conditional", "last"):
                tensor = getattr(self, name)
                setattr(self, name, tensor if tensor is None else tensor.to(device))
        lengths = torch.cat([sizes.lengths, sizes.lengths.new_ones(1)])
        value = _product(lengths, self.axes)
        if len(self.unit):
            p = sizes.units[self.unit]
            value = value.index_add(0, self.term, self.times * (p - p * p))
        value = value * self.coefficient
        if self.last is not None:
            full = _product(torch.cat([sizes.units, sizes.units.new_ones(1)]), self.last)
            value = value * (1 - self.conditional * full)
        if self.gates.shape[1]:
            value = value * _product(torch.cat([sizes.gates, sizes.gates.new_ones(1)]), self.gates)
        return value


def _product(values: Tensor, index: Tensor) -> Tensor:
    result = values.new_ones(index.shape[0])
    for column in range(index.shape[1]):
        result = result * values[index[:, column]]
    return result


def _padded(rows: list[list[int]], filler: int) -> Tensor:
    width = max((len(row) for row in rows), default=0)
    return torch.tensor([row + [filler] * (width - len(row)) for row in rows], dtype=torch.int64).reshape(
        len(rows), width
    )


def _gates(term: Term, owned: Mapping[int, frozenset[int]]) -> list[int]:
    """The gates of a term, but for those that one of its axes carries."""
    if not owned or not owned.keys() & set(term.gates):
        return list(term.gates)
    on = [[frozenset(row) for row in axis.factors.tolist()] for axis in term.axes]
    carried = {b for b in term.gates if b in owned and any(all(row & owned[b] for row in rows) for rows in on)}
    return [b for b in term.gates if b not in carried]


def _shared_units(term: Term, n_units: int) -> tuple[IntArray, IntArray]:
    """Units on both axes of a two-axis term of simple axes, with the product of their counts."""
    if len(term.axes) != 2 or any(a.factors.shape[1] != 1 for a in term.axes):
        return np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.int64)
    (a, count_a), (b, count_b) = (np.unique(axis.factors[:, 0], return_counts=True) for axis in term.axes)
    common, in_a, in_b = np.intersect1d(a, b, assume_unique=True, return_indices=True)
    real = common < n_units
    return common[real], (count_a[in_a] * count_b[in_b])[real]
