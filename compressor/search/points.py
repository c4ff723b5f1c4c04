"""Networks that one search found for many budgets at once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from compressor.arrays import BoolArray, UnitMask

_UNITS, _GATES, _STATISTICS, _BETWEEN = "points.units", "points.gates", "points.statistics", "|"


@dataclass(eq=False)
class Point:
    """One network: a hard choice, what it costs and how good it is.

    Attributes:
        name: tells it from the other points.
        units: what is kept, shape (n_units + 1,), the last entry true.
        gates: which blocks are kept, shape (n_blocks,).
        costs: by name, in each cost's base unit.
        score: on held-out samples, by the task's metric.
        settings: what was chosen, by search dimension, as JSON values.
        statistics: running statistics of its normalisations, by the names that they have in the network.
    """

    name: str
    units: UnitMask
    gates: BoolArray
    costs: dict[str, float]
    score: float
    settings: dict[str, Any] = field(default_factory=dict)
    statistics: Mapping[str, Tensor] = field(default_factory=dict)

    def row(self) -> dict[str, Any]:
        """All that is no tensor, as JSON values."""
        return {"name": self.name, "costs": self.costs, "score": self.score, "settings": self.settings}


def point_tensors(points: Sequence[Point]) -> dict[str, Tensor]:
    """What of the points is stored as tensors; ``read_points`` is the way back."""
    if not points:
        return {}
    found = {
        _UNITS: torch.from_numpy(np.stack([point.units for point in points])),
        _GATES: torch.from_numpy(np.stack([point.gates for point in points])),
    }
    for index, point in enumerate(points):
        found |= {_BETWEEN.join((_STATISTICS, str(index), name)): t for name, t in point.statistics.items()}
    return found


def read_points(rows: Sequence[Mapping[str, Any]], tensors: Mapping[str, Tensor]) -> list[Point]:
    """The points of ``row`` and ``point_tensors``, in their order."""
    if not rows:
        return []
    statistics: list[dict[str, Tensor]] = [{} for _ in rows]
    for key, tensor in tensors.items():
        if key.startswith(_STATISTICS + _BETWEEN):
            _, index, name = key.split(_BETWEEN, 2)
            statistics[int(index)][name] = tensor
    units, gates = tensors[_UNITS].numpy().astype(np.bool_), tensors[_GATES].numpy().astype(np.bool_)
    return [
        Point(row["name"], units[i], gates[i], dict(row["costs"]), row["score"], dict(row["settings"]), statistics[i])
        for i, row in enumerate(rows)
    ]
