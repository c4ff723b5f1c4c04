"""All search dimensions together: from choices to what a network keeps, hard and relaxed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from compressor.arrays import BoolArray, IntArray, UnitMask
from compressor.costs import CostTerm
from compressor.search.constraints.constraint import hard_sizes
from compressor.search.constraints.projector import Projector
from compressor.search.methods.supernet.dimensions import Dimension


class Space:
    """The product of D dimensions of up to K choices each.

    A subnet is an array of choices, shape (D,). What no dimension decides on is as the projector starts with it.

    Attributes:
        valid: which entries of a (D, K) table are choices.
    """

    def __init__(self, projector: Projector, dimensions: Sequence[Dimension]) -> None:
        self.projector, self.graph, self.dimensions = projector, projector.graph, list(dimensions)
        self.lengths: IntArray = np.array([len(each) for each in dimensions], dtype=np.int64)
        width = int(self.lengths.max())
        self.valid = torch.from_numpy(np.arange(width)[None, :] < self.lengths[:, None])
        self._table = len(dimensions) * width
        # Values are looked up in [sums from a choice on | choices | 0 | 1].
        zero, one = 2 * self._table, 2 * self._table + 1
        self._units = np.where(projector.start[:-1], one, zero)
        self._gates = np.full(len(self.graph.blocks), one)
        for i, each in enumerate(dimensions):
            first = i * width + (0 if each.nested else self._table)
            there = each.unit_from < len(each)
            self._units[each.units] = np.where(there, first + each.unit_from, zero)
            self._gates[each.blocks] = first + each.block_from
        self._index = torch.from_numpy(np.concatenate([self._units, self._gates]))

    def __len__(self) -> int:
        return len(self.dimensions)

    @property
    def largest(self) -> IntArray:
        return self.lengths - 1

    @property
    def smallest(self) -> IntArray:
        return np.zeros_like(self.lengths)

    def one_hot(self, choices: IntArray) -> Tensor:
        """Shape (D, K), float64."""
        table = torch.zeros(self.valid.shape, dtype=torch.float64)
        table[torch.arange(len(self)), torch.from_numpy(choices)] = 1
        return table

    def relaxed(self, weights: Tensor) -> tuple[Tensor, Tensor]:
        """What a network keeps if each choice has a weight, those of a dimension adding up to 1.

        Args:
            weights: shape (D, K), 0 where there is no choice.

        Returns:
            Weights of units, shape (n_units,), and of blocks, (n_blocks,): 0 or 1 for one-hot weights. What is kept
            from a choice on has the sum of the weights from there on.
        """
        sums = weights.flip(1).cumsum(1).flip(1)
        ends = torch.tensor([0.0, 1.0], dtype=weights.dtype, device=weights.device)
        if self._index.device != weights.device:
            self._index = self._index.to(weights.device)
        values = torch.cat([sums.flatten(), weights.flatten(), ends])[self._index]
        return values[: self.graph.n_units], values[self.graph.n_units :]

    def hard(self, choices: IntArray) -> tuple[UnitMask, BoolArray]:
        """The units, shape (n_units + 1,), and blocks, (n_blocks,), of a subnet."""
        units, gates = self.relaxed(self.one_hot(choices))
        kept = np.append(units.numpy() > 0.5, True)
        return kept, self.graph.gates(gates.numpy() > 0.5)

    def costs(self, terms: Mapping[str, CostTerm], choices: IntArray) -> dict[str, float]:
        """Costs of a subnet by name."""
        with torch.no_grad():
            sizes = hard_sizes(self.graph, *self.hard(choices))
            return {name: float(term(sizes)) for name, term in terms.items()}

    def settings(self, choices: IntArray) -> dict[str, Any]:
        """What a subnet has, by kind and name."""
        found: dict[str, Any] = {}
        for each, choice in zip(self.dimensions, choices.tolist(), strict=True):
            found.setdefault(each.kind, {})[each.name] = each.labels[choice]
        return found

    def by_kind(self, weights: Tensor) -> tuple[dict[str, float], dict[str, float]]:
        """Mean and standard deviation of the share of the largest that choices of these probabilities keep, by kind."""
        shares = torch.zeros(self.valid.shape, dtype=weights.dtype)
        for i, each in enumerate(self.dimensions):
            shares[i, : len(each)] = torch.tensor(each.shares, dtype=weights.dtype)
        mean = (weights * shares).sum(1)
        spread = ((weights * shares.square()).sum(1) - mean.square()).clamp_min(0).sqrt()
        kinds = list(dict.fromkeys(each.kind for each in self.dimensions))
        of = {kind: [i for i, each in enumerate(self.dimensions) if each.kind == kind] for kind in kinds}
        return (
            {kind: round(float(mean[rows].mean()), 4) for kind, rows in of.items()},
            {kind: round(float(spread[rows].mean()), 4) for kind, rows in of.items()},
        )
