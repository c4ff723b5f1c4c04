"""One of each of several sets, so that several sums stay within their limits at once."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from compressor.arrays import FloatArray, IntArray

#: Most ways that are followed up at once.
_WAYS = 4000
_NOTHING = 1e-12


def ways_together(room: FloatArray, sets: Sequence[FloatArray]) -> IntArray:
    """Which to take of each set, the cheapest first: shape (n_ways, n_sets), no row if none is found.

    Set by set, a way is kept as long as no other is cheaper in everything, and as the cheapest of all sets that follow
    still fit. With one limit that finds the cheapest; with several it may miss some once there are very many ways.

    Args:
        room: what may be spent, shape (n_limits,).
        sets: of each set what its members cost, shape (n_members, n_limits).
    """
    rest = sum((each.min(axis=0) for each in sets), np.zeros(len(room)))
    costs, ways = np.zeros((1, len(room))), np.zeros((1, 0), dtype=np.int64)
    for each in sets:
        rest = rest - each.min(axis=0)
        costs = (costs[:, None, :] + each[None, :, :]).reshape(-1, len(room))
        members = np.tile(np.arange(len(each)), len(ways))
        ways = np.concatenate([np.repeat(ways, len(each), axis=0), members[:, None]], axis=1)
        over = (costs + rest - room).max(axis=1, initial=-np.inf)
        possible = np.flatnonzero(over <= _NOTHING)
        possible = possible[np.argsort(over[possible], kind="stable")][:_WAYS]
        kept = possible[_undominated(costs[possible])]
        costs, ways = costs[kept], ways[kept]
    return ways[np.argsort((costs - room).max(axis=1, initial=-np.inf), kind="stable")]


def _undominated(costs: FloatArray) -> IntArray:
    """Rows of (n, n_limits) such that no other is as cheap in everything; of equal ones the first."""
    kept: list[int] = []
    for row in np.lexsort(costs.T[::-1]).tolist():
        if not kept or not (costs[kept] <= costs[row]).all(axis=1).any():
            kept.append(row)
    return np.array(kept, dtype=np.int64)
