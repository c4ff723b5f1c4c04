"""Sigmoid masks of DNArch (Romero and Zeghidour, 2023): how many of a row of ordered places are kept, differentiably.

Places have coordinates x from -1 (the first) to 1 (the last). The mask falls along them:

    m(x) = sigmoid(-tau (x - mu)) where that is at least T, else 0                      (eq. 4)
    x_T  = mu + log((1 - T) / T) / tau, the coordinate where it reaches T               (eq. 6)
    size = N_0 (x_T + 1) / (x_T0 + 1), at most the number of places                     (eq. 11, appendix E.1)

``mu`` is learned, ``tau`` is fixed. ``mu`` stays between ``lowest(tau)``, where the mask is 0.95 at the first place,
and ``highest(tau)``, where it is 0.85 at the last. The smallest size is then 5.1417 / (2 tau) of all.
"""

from __future__ import annotations

import math
from typing import TypeVar

import torch
from torch import Tensor

from compressor.masks.straight_through import capped

THRESHOLD = 0.1
FIRST_AT_LEAST = 0.95
LAST_AT_MOST = 0.85

Number = TypeVar("Number", float, Tensor)


def reach(threshold: float = THRESHOLD) -> float:
    """``tau (x_T - mu)``: 2.1972 for a threshold of 0.1."""
    return math.log((1 - threshold) / threshold)


def crossing(mu: Number, tau: Number, threshold: float = THRESHOLD) -> Number:
    """``x_T``, where the mask reaches the threshold."""
    return mu + reach(threshold) / tau


def offset(x: Number, tau: Number, threshold: float = THRESHOLD) -> Number:
    """The ``mu`` for which the mask reaches the threshold at ``x``; at 0 half of the places are kept."""
    return x - reach(threshold) / tau


def lowest(tau: Number) -> Number:
    """The smallest ``mu``: the mask is 0.95 at the first place."""
    return math.log(FIRST_AT_LEAST / (1 - FIRST_AT_LEAST)) / tau - 1


def highest(tau: Number) -> Number:
    """The largest ``mu``: the mask is 0.85 at the last place."""
    return math.log(LAST_AT_MOST / (1 - LAST_AT_MOST)) / tau + 1


def coordinates(count: int) -> Tensor:
    """Coordinates of ``count`` places, float64; a single place is the first."""
    return torch.linspace(-1, 1, count, dtype=torch.float64)


def logit(x: Tensor, mu: Tensor | float, tau: Tensor | float) -> Tensor:
    """The logit of the mask without its threshold."""
    return -tau * (x - mu)


def mask(x: Tensor, mu: Tensor | float, tau: Tensor | float, threshold: float = THRESHOLD) -> Tensor:
    """The mask at coordinates ``x``: in [T, 1], or 0."""
    value = torch.sigmoid(logit(x, mu, tau))
    return torch.where(value >= threshold, value, torch.zeros_like(value))


def size(
    mu: Tensor,
    tau: Tensor | float,
    largest: Tensor | float,
    *,
    start: Tensor | float | None = None,
    start_crossing: Tensor | float = 1.0,
    threshold: float = THRESHOLD,
) -> Tensor:
    """How many places are kept, as a differentiable number of at most ``largest``; the cap keeps the gradient.

    Args:
        start: the size N_0 when ``x_T`` is ``start_crossing``. By default all places, at a crossing of 1.
    """
    base = largest if start is None else start
    x_t: Tensor = mu + reach(threshold) / tau
    return capped(base * (x_t + 1) / (start_crossing + 1), largest)


def count(mu: float, tau: float, places: int, threshold: float = THRESHOLD) -> int:
    """How many of ``places`` the mask keeps: those with a mask of at least T on the grid."""
    return int((mask(coordinates(places), mu, tau, threshold) > 0).sum())
