"""Gaussian masks of DNArch (Romero and Zeghidour, 2023): the extent of something centred, such as a kernel.

    m(x) = exp(-x^2 / (2 sigma^2)) where that is at least T, else 0                     (eq. 3, centred)
    x_T  = sigma sqrt(-2 log T)                                                         (eq. 5)
    size = N_0 x_T / x_T0, at most the number of places                                 (eq. 10, appendix E.1)

``sigma`` is learned for each axis; the mask of several axes is the product of theirs (appendix A.2). Coordinates run
over [-1, 1].
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TypeVar

import torch
from torch import Tensor

from compressor.masks.sigmoid import LAST_AT_MOST, THRESHOLD, coordinates
from compressor.masks.straight_through import capped

SMALL, GLOBAL = 0.0325, 0.5
"""Range of ``sigma`` to start from: a local kernel, and one over (more than) all places."""

Number = TypeVar("Number", float, Tensor)


def reach(threshold: float = THRESHOLD) -> float:
    """``x_T / sigma``: 2.14597 for a threshold of 0.1."""
    return math.sqrt(-2 * math.log(threshold))


def crossing(sigma: Number, threshold: float = THRESHOLD) -> Number:
    """``x_T``, where the mask reaches the threshold on either side."""
    return sigma * reach(threshold)


def smallest(places: int, threshold: float = THRESHOLD) -> float:
    """The least ``sigma`` for ``places`` samples: what is kept, ``2 x_T``, is then as long as one sample."""
    return 1 / (places * reach(threshold))


def mask(x: Tensor, sigma: Tensor | float, threshold: float = THRESHOLD) -> Tensor:
    """The mask at coordinates ``x``: in [T, 1], or 0."""
    value = torch.exp(-0.5 * (x / sigma).square())
    return torch.where(value >= threshold, value, torch.zeros_like(value))


def product_mask(shape: Sequence[int], sigmas: Sequence[Tensor | float], threshold: float = THRESHOLD) -> Tensor:
    """The mask over a grid of ``shape``, one sigma per axis, float64."""
    result = torch.ones((), dtype=torch.float64)
    for axis, (n, sigma) in enumerate(zip(shape, sigmas, strict=True)):
        along = mask(coordinates(n) if n > 1 else torch.zeros(1, dtype=torch.float64), sigma, threshold)
        result = result * along.reshape(-1, *[1] * (len(shape) - 1 - axis))
    return result


def highest() -> float:
    """The largest ``sigma`` for weights that were trained whole: the mask is 0.85 at the last place, as a sigmoid's."""
    return 1 / math.sqrt(-2 * math.log(LAST_AT_MOST))


def size(
    sigma: Tensor,
    largest: Tensor | float,
    *,
    start: Tensor | float,
    start_sigma: float,
    threshold: float = THRESHOLD,
) -> Tensor:
    """How many places are kept, as a differentiable number of at most ``largest``; the cap keeps the gradient.

    Args:
        start: the size N_0 when ``sigma`` is ``start_sigma``.
    """
    return capped(start * crossing(sigma, threshold) / (start_sigma * reach(threshold)), largest)


def count(sigma: float, places: int, threshold: float = THRESHOLD) -> int:
    """How many of ``places`` the mask keeps; for an odd number the centre is always among them."""
    x = coordinates(places) if places > 1 else torch.zeros(1, dtype=torch.float64)
    return int((mask(x, sigma, threshold) > 0).sum())
