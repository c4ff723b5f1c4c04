"""Rows of ordered things (the channels of a group, the blocks of a stage), each kept up to a learnable extent.

A row has one sigmoid mask (``masks.sigmoid``) with a learnable offset. Two numbers per thing come of it, and they
differ on purpose: its *mask*, which acts on the network and is soft near the frontier, and its *weight* in the sizes,
which is 1 inside and 0 outside, so that products of sizes are costs and not expectations.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from compressor.masks import sigmoid
from compressor.masks.straight_through import fill

IntArray = npt.NDArray[np.int64]


class Rows:
    """Rows over ``n_things``; a thing that is in no row is always kept.

    Args:
        rows: the things of each row, first to last.
        tau: steepness of all masks.
    """

    def __init__(self, n_things: int, rows: Sequence[IntArray], tau: float, device: torch.device) -> None:
        self.n_things, self.tau, self.rows = n_things, tau, list(rows)
        self.counts = torch.tensor([len(row) for row in rows], dtype=torch.int64, device=device)
        things = np.concatenate(rows) if rows else np.zeros(0, dtype=np.int64)
        self._things = torch.from_numpy(things).to(device)
        self._owner = torch.repeat_interleave(torch.arange(len(rows), device=device), self.counts)
        ranks = [np.arange(len(row)) for row in rows]
        self._rank = torch.from_numpy(np.concatenate(ranks) if rows else things).to(device)
        grids = [sigmoid.coordinates(len(row)) for row in rows]
        self._x = (torch.cat(grids) if rows else torch.zeros(0, dtype=torch.float64)).to(device)
        start = [sigmoid.highest(tau)] * len(rows)
        self.offsets = nn.Parameter(torch.tensor(start, dtype=torch.float64, device=device))

    def __len__(self) -> int:
        return len(self.rows)

    def logits(self) -> Tensor:
        """Logits of the masks without their threshold, shape (n_things,), infinite for what is in no row."""
        each = sigmoid.logit(self._x, self.offsets[self._owner], self.tau)
        return each.new_full((self.n_things,), torch.inf).index_put((self._things,), each)

    def masks(self) -> Tensor:
        """How much of each thing there is, shape (n_things,): 0 or at least T."""
        each = sigmoid.mask(self._x, self.offsets[self._owner], self.tau)
        return each.new_ones(self.n_things).index_put((self._things,), each)

    def sizes(self) -> Tensor:
        """The differentiable size of each row, shape (n_rows,)."""
        return sigmoid.size(self.offsets, self.tau, self.counts.double())

    def weights(self) -> Tensor:
        """Weights that add up to the sizes, shape (n_things,): ``clamp(size - rank, 0, 1)``."""
        each = fill(self.sizes(), self._owner, self._rank, self.counts)
        return each.new_ones(self.n_things).index_put((self._things,), each)

    def kept(self, shift: float = 0.0) -> IntArray:
        """How many things of each row are kept when all offsets move by ``shift`` within their bounds."""
        offsets = (self.offsets.detach() + shift).clamp(sigmoid.lowest(self.tau), sigmoid.highest(self.tau))
        inside = (sigmoid.mask(self._x, offsets[self._owner], self.tau) > 0).double()
        found: IntArray = inside.new_zeros(len(self)).index_add(0, self._owner, inside).long().cpu().numpy()
        return found

    def least(self) -> IntArray:
        """How many things of each row the bounds leave at least."""
        lowest = sigmoid.lowest(self.tau)
        return np.array([sigmoid.count(lowest, self.tau, len(row)) for row in self.rows], dtype=np.int64)

    @torch.no_grad()
    def clamp_(self) -> None:
        """Bring all offsets back within their bounds."""
        self.offsets.clamp_(sigmoid.lowest(self.tau), sigmoid.highest(self.tau))
