"""Importance by a function of the user's own."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from compressor.arrays import IntArray
from compressor.errors import CompressorError, UsageError
from compressor.graph.axis import Axis
from compressor.graph.groups import Group
from compressor.search.importance.base import Ranking, Scores, checked, inside
from compressor.search.importance.dead import without_dead


@dataclass(frozen=True)
class UnitGroup:
    """One group, as a function that ranks its units sees it: ``len(group)`` units, one row of every tensor each.

    Attributes:
        name: as ``compress inspect`` shows it.
        layers: names of the modules that write or read the units.
        written: by parameter, the weights that write the units, shape (units, ...): as the forward uses them, so with
            pruning masks, weight normalisation and the like in them.
        read: the weights that read the units, likewise.
        scales: parameters with one number per channel, such as biases and norms, likewise.
        seed: the job's, for functions that draw.
    """

    name: str
    layers: tuple[str, ...]
    written: Mapping[str, Tensor] = field(default_factory=dict)
    read: Mapping[str, Tensor] = field(default_factory=dict)
    scales: Mapping[str, Tensor] = field(default_factory=dict)
    seed: int = 0
    units: int = 0

    def __len__(self) -> int:
        return self.units


def by_function(function: Callable[[UnitGroup], Any], ranking: Ranking) -> Scores:
    """Ask ``function`` for one number per unit of every group of channels; a block is worth what is inside.

    Raises:
        UsageError: the function raises, or returns something other than one finite, non-negative number per unit.
    """
    graph = ranking.graph
    units = np.ones(graph.n_units)  # rings of kernels and frequencies go in the order they stand
    name = getattr(function, "__name__", type(function).__name__)
    channels = [group for group in graph.groups if group.ranked]
    for group in channels:
        try:
            found = function(_described(ranking, group))
        except CompressorError:
            raise
        except Exception as error:  # whatever a function of the user's may raise
            raise UsageError(f"{name} raised {type(error).__name__} for group {group.name}: {error}") from error
        units[group.units] = checked(f"{name}, asked about group {group.name},", found, (len(group),))
    if channels and not any(units[group.units].any() for group in channels):
        raise UsageError(f"{name} returned zero for every unit; there is nothing to rank by.")
    return without_dead(ranking, units, inside(graph, units))


def _described(ranking: Ranking, group: Group) -> UnitGroup:
    kinds: dict[str, dict[str, Tensor]] = {"written": {}, "read": {}, "scales": {}}
    for weight in ranking.weights:
        for d, axis in enumerate(weight.axes):
            rows = None if axis is None else _rows(axis, group)
            if rows is None:
                continue
            moved = weight.tensor.detach().movedim(d, 0)
            found = moved[torch.from_numpy(rows).to(moved.device)].flatten(1)  # (units, what each carries)
            kind = "read" if d in weight.reading else "written" if moved.dim() > 1 else "scales"
            kinds[kind][weight.name] = found
    layers = tuple(dict.fromkeys(name.rpartition(".")[0] for name, _ in group.members))
    return UnitGroup(group.name, layers, **kinds, seed=ranking.context.seed, units=len(group))


def _rows(axis: Axis, group: Group) -> IntArray | None:
    """The indices that each unit of a group carries, shape (units, n); ``None`` if this axis does not have them all."""
    every = [np.flatnonzero((axis.factors == unit).any(1)) for unit in group.units]
    n = len(every[0]) if every else 0
    return np.stack(every) if n and all(len(each) == n for each in every) else None
