"""Where the resolution of a network falls along its depth, as plain data."""

from __future__ import annotations

import math
from dataclasses import dataclass

Configuration = tuple[int, ...]
"""How many layers run at each resolution, the highest first."""


@dataclass(frozen=True)
class Reduction:
    """Where the resolution falls.

    Attributes:
        modules: those that do it, shortcuts included.
        before: the index, in ``Stages.layers``, of the first layer behind it, or in which it happens.
        factor: by how much, a number for each spatial axis.
        attributes: strides that modules hold as attributes of their own: (module, attribute, value).
    """

    modules: tuple[str, ...]
    before: int
    factor: tuple[int, ...]
    attributes: tuple[tuple[str, str, int], ...] = ()


@dataclass(frozen=True)
class Stages:
    """A trunk whose reductions can move.

    Attributes:
        layers: module names, in the order in which they run. The first always runs at the highest resolution.
        reductions: those that can move, in their order.
        configurations: how many layers run at each resolution, in the order of the paper.
        default: which of these the network has; ``None`` if it has none of them.
        places: which layers, by index, a pool may stand before.
        sizes: spatial sizes by resolution, the highest first, as pools make them.
        staying: reductions that do not move: a sentence each.
        reason: why there is nothing to choose; empty if there is.
    """

    layers: tuple[str, ...] = ()
    reductions: tuple[Reduction, ...] = ()
    configurations: tuple[Configuration, ...] = ()
    default: int | None = None
    places: tuple[int, ...] = ()
    sizes: tuple[tuple[int, ...], ...] = ()
    staying: tuple[str, ...] = ()
    reason: str = ""


def configuration(layers: int, pools: int, rank: int) -> Configuration:
    """Of the ways to run so many layers at ``pools + 1`` resolutions, at least one at each, the one of this rank in
    lexicographic order; there are ``comb(layers - 1, pools)``."""
    found = []
    for left in range(pools, 0, -1):
        count = 1
        while rank >= (ways := math.comb(layers - count - 1, left - 1)):
            rank, count = rank - ways, count + 1
        found.append(count)
        layers -= count
    return (*found, layers)


def rank_of(configuration: Configuration) -> int:
    """Where a configuration stands in lexicographic order."""
    layers, rank = sum(configuration), 0
    for i, count in enumerate(configuration[:-1]):
        left = len(configuration) - 1 - i
        rank += sum(math.comb(layers - fewer - 1, left - 1) for fewer in range(1, count))
        layers -= count
    return rank


def pooled_before(configuration: Configuration) -> list[int]:
    """The indices of the layers before which a configuration pools."""
    found, at = [], 0
    for count in configuration[:-1]:
        at += count
        found.append(at)
    return found
