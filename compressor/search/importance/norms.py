"""Importance by the size of weights, and by chance."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from compressor.arrays import FloatArray
from compressor.search.importance.base import Ranking, Scores, inside, whole_weights
from compressor.search.importance.dead import without_dead


def l2(ranking: Ranking) -> Scores:
    """Squared weights per unit, each weight's as a share of its tensor's.

    A unit that many layers share, such as a channel of a residual stream, adds up its shares in all of them.
    """
    return without_dead(ranking, _shares(ranking, torch.square), whole_weights(ranking.graph))


def l1(ranking: Ranking) -> Scores:
    """The same of absolute values."""
    return without_dead(ranking, _shares(ranking, torch.abs), whole_weights(ranking.graph))


def random(ranking: Ranking) -> Scores:
    """Drawn from the seed: what any measure has to be better than."""
    units = np.random.default_rng(ranking.context.seed).uniform(0.5, 1.5, ranking.graph.n_units)
    return units, inside(ranking.graph, units)


def _shares(ranking: Ranking, size: Callable[[Tensor], Tensor]) -> FloatArray:
    shares = np.zeros(ranking.graph.n_units)
    for weight in ranking.weights:
        if weight.tensor.dim() < 2:
            continue  # norms and biases have scales of their own, which say little about the weight of a channel
        each = size(weight.tensor.detach().abs().float())
        total = float(each.sum())
        if total == 0 or not np.isfinite(total):
            continue
        for d, axis in enumerate(weight.axes):
            if axis is not None:
                shares += ranking.per_unit(each, axis, d) * (weight.share / total)
    return shares
