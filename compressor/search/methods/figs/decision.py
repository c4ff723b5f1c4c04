"""From logits to a hard choice."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from compressor.arrays import BoolArray, IntArray, UnitMask
from compressor.search.constraints.projector import Projector
from compressor.search.methods.figs.operators import Operators


class _Decision:
    """The decided masks, units then blocks, or ``None`` while the search goes on; survives a kill."""

    def __init__(self) -> None:
        self.masks: Tensor | None = None

    def state_dict(self) -> dict[str, Any]:
        return {"masks": self.masks}

    def load_state_dict(self, state: dict[str, Any], /) -> None:
        self.masks = state["masks"]


def decide(projector: Projector, logits: Tensor, blocks: Tensor) -> tuple[UnitMask, BoolArray]:
    """Units and gates, see ``FigsLearner.decide``. Works for any logits of shapes (n_units,) and (n_blocks,)."""
    priority, block_logits = logits.numpy(), blocks.numpy()
    group, operators = torch.from_numpy(projector.group_of), Operators(projector)
    sizes = np.array([len(g) for g in projector.graph.groups])

    def expected_counts(t: float) -> IntArray:
        expected = torch.zeros(len(sizes), dtype=torch.float64).index_add(0, group, torch.sigmoid(logits + t))
        counts: IntArray = np.minimum(np.floor(expected.numpy() + 1e-6).astype(np.int64), sizes)
        return counts

    def shifted(t: float) -> tuple[UnitMask, BoolArray]:
        counts = expected_counts(t)
        gates = ((block_logits + t >= 0) & ~operators.closed(counts)) | ~projector.removable
        return projector.choose(projector.allowed(counts), priority), projector.graph.gates(gates, block_logits)

    low, high = -40.0, 40.0
    if projector.fits(*shifted(high)):
        return shifted(high)
    for _ in range(40):
        middle = (low + high) / 2
        low, high = (middle, high) if projector.fits(*shifted(middle)) else (low, middle)
    units, gates = shifted(low)
    barred = operators.closed(expected_counts(low))
    gates = projector.graph.gates(projector.restore(units, gates, block_logits, barred=barred))
    return projector.fill(units, torch.sigmoid(logits).numpy(), gates=gates), gates
