"""When a greedy search takes out a whole block rather than channels.

A block saves its whole cost at one blow, and loses the sum of its units' importance. The same saving can be had from
the cheapest units elsewhere; the block goes if what those units are worth together exceeds the block's importance by
``CAUTION``. First-order importance understates a change as large as losing a block, and width is safer to give.

Width leads on purpose: a CIFAR ResNet-56 at half its multiply-adds, before fine-tuning, keeps 73 to 74 % accuracy with
0 or 3 of its blocks gone (those whose loss grows least per cost saved) and 70 to 71 % with 6, 9 or 12.
"""

from __future__ import annotations

import numpy as np

from compressor.arrays import BoolArray, FloatArray, UnitMask
from compressor.search.constraints.projector import Projector

CAUTION = 2.0
OVERSHOOT = 1.25  # a block that saves more than this times what is still to be saved stays for now


def cheapest_block(
    projector: Projector,
    units: UnitMask,
    gates: BoolArray,
    importance: FloatArray,
    worth: FloatArray,
    excess: FloatArray,
    *,
    forced: bool = False,
) -> int | None:
    """The block to remove next, or ``None`` if channels are the better choice.

    Args:
        importance: of every block, in the measure of ``worth``, shape (n_blocks,).
        worth: importance of every unit at the current widths, shape (n_units,).
        excess: what is still to be saved under each constraint, as fractions of the limits.
        forced: take one however dear, as channels have nothing more to give.
    """
    graph = projector.graph
    there = graph.gates(gates)
    candidates = np.flatnonzero(graph.spare(there) & projector.removable).tolist()
    if not candidates:
        return None
    weight = excess / max(excess.sum(), 1e-15)
    per_unit, per_block = projector.marginals(units, gates)
    saving, block_saving = weight @ per_unit, weight @ per_block
    kept = np.flatnonzero(units[:-1] & ~projector.swaps)
    order = kept[np.argsort(worth[kept] / np.maximum(saving[kept], 1e-15), kind="stable")]
    order = order[saving[order] > 1e-12]
    total = float((weight * excess).sum())
    scarcity = importance.sum() / max(float(importance[there].sum()), 1e-300)
    best, best_ratio = None, 1.0 if not forced else np.inf
    for b in candidates:
        if block_saving[b] <= 1e-12 or (not forced and block_saving[b] > OVERSHOOT * total):
            continue
        outside = np.ones(graph.n_units, dtype=np.bool_)
        for g in graph.blocks[b].groups:
            outside[graph.groups[g].units] = False
        elsewhere = order[outside[order]]
        saved = np.cumsum(saving[elsewhere])
        n = int(np.searchsorted(saved, block_saving[b])) + 1
        price = importance[b] * scarcity * CAUTION
        if forced:
            ratio = price / block_saving[b]
        elif n > len(elsewhere):
            ratio = 0.0
        else:
            ratio = price / max(float(worth[elsewhere[:n]].sum()), 1e-300)
        if ratio < best_ratio:
            best, best_ratio = b, ratio
    return best
