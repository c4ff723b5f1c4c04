"""What measures of importance share: the weights in use, and sums over units."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from torch import Tensor, nn

from compressor.arrays import FloatArray
from compressor.graph.axis import Axis
from compressor.graph.graph import Graph
from compressor.search.base import SearchContext
from compressor.search.importance.effective import Weight, weights_in_use

Scores = tuple[FloatArray, FloatArray]
"""Of every unit, shape (n_units,), and of every block, (n_blocks,)."""
Measure = Callable[["Ranking"], Scores]


@dataclass
class Ranking:
    """What a measure may use. ``batches`` is how many it may look at."""

    context: SearchContext
    batches: int = 8

    @property
    def model(self) -> nn.Module:
        return self.context.model

    @property
    def graph(self) -> Graph:
        return self.context.graph

    @cached_property
    def weights(self) -> list[Weight]:
        """The weights as the forward uses them; computed ones in place of what they are computed from."""
        context = self.context
        return weights_in_use(context.model, context.graph, context.example)

    def per_unit(self, each: Tensor, axis: Axis, d: int) -> FloatArray:
        """The sum over what each unit carries of axis ``d``, shape (n_units,)."""
        other = [i for i in range(each.dim()) if i != d]
        along = (each.sum(other) if other else each).double().cpu().numpy()
        total = np.zeros(self.graph.n_units)
        add_per_unit(total, axis, along)
        return total

    def warn(self, message: str) -> None:
        """Tell the user."""
        self.context.warn(message)


def add_per_unit(total: FloatArray, axis: Axis, each: FloatArray) -> None:
    """Add the values along an axis to the units that its indices belong to; ``total`` has shape (n_units,)."""
    for column in axis.factors.T:
        total += np.bincount(column, weights=each, minlength=len(total) + 1)[: len(total)]


def inside(graph: Graph, units: FloatArray) -> FloatArray:
    """Importance of every block as the sum of that of the units inside; blocks without any matter as much as others."""
    found = np.array([sum(float(units[graph.groups[g].units].sum()) for g in b.groups) for b in graph.blocks])
    counted = np.array([bool(b.groups) for b in graph.blocks], dtype=np.bool_)
    if counted.any():
        found[~counted] = found[counted].mean()
    return found


def whole_weights(graph: Graph) -> FloatArray:
    """Importance of every block in the measure of shares of weights: it takes whole ones; shape (n_blocks,)."""
    weights = {p.name for p in graph.parameters.values() if p.reached and not p.is_buffer and len(p.shape) > 1}
    return np.array([float(len(weights.intersection(block.parameters))) for block in graph.blocks])


def checked(name: str, found: Any, shape: tuple[int, ...]) -> FloatArray:
    """Scores as float64. Raises ``UsageError`` if they are not finite, non-negative numbers of this shape."""
    from compressor.errors import UsageError

    if isinstance(found, Tensor):
        found = found.detach().cpu().numpy()
    try:
        scores = np.asarray(found, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise UsageError(f"{name} returned a {type(found).__name__}; it must return {shape[0]} numbers.") from error
    if scores.shape != shape:
        raise UsageError(f"{name} returned numbers of shape {list(scores.shape)}; it must return {list(shape)}.")
    if not np.isfinite(scores).all() or (scores < 0).any():
        bad = float(scores[~np.isfinite(scores) | (scores < 0)][0])
        cure = "" if np.isfinite(bad) else " Look for NaN and infinity in the data and in the weights of the model."
        raise UsageError(f"{name} returned {bad}; importances must be finite and not negative.{cure}")
    return scores
