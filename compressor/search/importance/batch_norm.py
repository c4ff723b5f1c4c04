"""Importance by the scales of batch norms (Liu et al., 2017, "Learning efficient convolutional networks")."""

from __future__ import annotations

import numpy as np
from torch import nn

from compressor.arrays import BoolArray, FloatArray
from compressor.errors import UsageError
from compressor.search.importance.base import Ranking, Scores, inside
from compressor.search.importance.norms import l2


def bn_scale(ranking: Ranking) -> Scores:
    """The absolute scale of every unit in the batch norms behind it; groups without one are ranked by magnitude, at the
    scales' mean, and named in a warning. Raises ``UsageError`` where no group has one."""
    graph = ranking.graph
    scales, normed = _scales(ranking)
    by_size, _ = l2(ranking)
    bare = [group for group in graph.groups if group.ranked and not normed[group.units].all()]
    channels = [group for group in graph.groups if group.ranked]
    if len(bare) == len(channels):
        raise UsageError(
            f"bn-scale ranks channels by the scales of batch norms, and no group of {graph.model_class} has one; "
            "choose magnitude, l1 or sensitivity."
        )
    if bare:
        names = ", ".join(group.name for group in bare[:4]) + (f" and {len(bare) - 4} more" if len(bare) > 4 else "")
        ranking.warn(f"bn-scale: no batch norm follows {names}; ranked by magnitude.")
    mean = float(scales[normed].mean())
    units = scales.copy()
    held = np.array([not group.ranked for group in graph.groups], dtype=np.bool_)
    for group in graph.groups:
        if held[group.index] or not normed[group.units].all():
            own = by_size[group.units]
            units[group.units] = own * (mean / max(float(own.mean()), 1e-300))
    return units, inside(graph, units)


def _scales(ranking: Ranking) -> tuple[FloatArray, BoolArray]:
    """The sum of absolute scales of every unit, and whether it has any; both of shape (n_units,)."""
    n = ranking.graph.n_units
    total, there = np.zeros(n), np.zeros(n, dtype=np.bool_)
    norms = {
        f"{place}.weight" if place else "weight"
        for place, module in ranking.model.named_modules(remove_duplicate=False)
        if isinstance(module, nn.modules.batchnorm._BatchNorm)
    }
    for weight in ranking.weights:
        if weight.name in norms and weight.axes and weight.axes[0] is not None:
            total += ranking.per_unit(weight.tensor.detach().abs().float(), weight.axes[0], 0)
            there |= np.bincount(weight.axes[0].factors.ravel(), minlength=n + 1)[:n] > 0
    return total, there
