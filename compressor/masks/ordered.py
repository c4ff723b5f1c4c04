"""Rows of ordered elements (the channels of a group, the blocks of a stage, the rings of a kernel, the frequencies
of a branch), each kept up to a learnable extent.

A row has one mask with one learnable number: a sigmoid mask with its offset (``Rows``), or for kernels a Gaussian one
with its sigma (``KernelRows``). Each element has a *mask*, which acts on the network and is soft near the frontier, and
a size *weight*, which costs use: it is 1 inside and 0 outside, so that products of sizes are costs and not
expectations.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn

from compressor.arrays import BoolArray, IntArray
from compressor.masks import gaussian, sigmoid
from compressor.masks.sigmoid import THRESHOLD
from compressor.masks.straight_through import fill, floored
from compressor.nn import spectral

FILTERED_EVERY = 2


class Rows:
    """Rows over ``n_things``; a thing that is in no row is always kept. Masks are sigmoid masks.

    ``pace`` is the learning rate of these masks as a multiple of the method's.

    Args:
        rows: the things of each row, first to last.
        tau: steepness of all masks.
        share: of each row that is inside its mask at first; at 1 the masks are as wide as they can be.
        least: how many things of each row stay inside its mask at least, if more than the bounds of all masks say.
        gone: things in no row that are never kept.
    """

    pace = 1.0

    def __init__(
        self,
        n_things: int,
        rows: Sequence[IntArray],
        tau: float,
        device: torch.device,
        share: float = 1.0,
        *,
        least: Sequence[int] = (),
        gone: IntArray | None = None,
    ) -> None:
        self._arrange(n_things, rows, [sigmoid.coordinates(len(row)) for row in rows], device, gone)
        self.tau = tau
        lowest, highest = sigmoid.lowest(tau), sigmoid.highest(tau)
        self._at_least = torch.full((len(rows),), lowest, dtype=torch.float64, device=device)
        for i, (row, n) in enumerate(zip(rows, least or [0] * len(rows), strict=True)):
            if n > 0:
                last = float(sigmoid.coordinates(len(row))[n - 1]) + 1e-9
                self._at_least[i] = min(max(lowest, sigmoid.offset(last, tau)), highest)
        start = [highest if share >= 1 else sigmoid.offset(2 * share - 1, tau)] * len(rows)
        self.offsets = nn.Parameter(torch.tensor(start, dtype=torch.float64, device=device))
        if any(least):
            self.clamp_()

    def _arrange(
        self,
        n_things: int,
        rows: Sequence[IntArray],
        grids: Sequence[Tensor],
        device: torch.device,
        gone: IntArray | None = None,
    ) -> None:
        self.n_things, self.rows = n_things, list(rows)
        self._gone = torch.from_numpy(gone).to(device) if gone is not None and len(gone) else None
        self.counts = torch.tensor([len(row) for row in rows], dtype=torch.int64, device=device)
        things = np.concatenate(rows) if rows else np.zeros(0, dtype=np.int64)
        self._things = torch.from_numpy(things).to(device)
        self._owner = torch.repeat_interleave(torch.arange(len(rows), device=device), self.counts)
        ranks = [np.arange(len(row)) for row in rows]
        self._rank = torch.from_numpy(np.concatenate(ranks) if rows else things).to(device)
        self._x = (torch.cat(list(grids)) if rows else torch.zeros(0, dtype=torch.float64)).to(device)

    def __len__(self) -> int:
        return len(self.rows)

    def arrange_(self, things: IntArray) -> None:
        """Give each row its things in another order; ``things`` are those of all rows, one row after the other.

        Raises:
            ValueError: rows have other things.
        """
        rows = np.split(things, np.cumsum([len(row) for row in self.rows])[:-1]) if self.rows else []
        if sum(map(len, rows)) != len(self._things) or len(things) != len(self._things):
            raise ValueError(f"{len(things)} elements are not the {len(self._things)} that have masks")
        if any(not np.array_equal(np.sort(a), np.sort(b)) for a, b in zip(rows, self.rows, strict=True)):
            raise ValueError("other elements have masks")
        self.rows = rows
        self._things = torch.from_numpy(things.astype(np.int64)).to(self._things.device)

    def logits(self) -> Tensor:
        """Logits of the masks without their threshold, shape (n_things,), infinite for what is in no row."""
        each = self._logit(self.offsets[self._owner])
        return self._placed(each, torch.inf, -torch.inf)

    def masks(self, threshold: float = THRESHOLD) -> Tensor:
        """How much of each thing there is, shape (n_things,): 0 or at least T."""
        return self._placed(self._mask(self.offsets[self._owner], threshold))

    def weights(self) -> Tensor:
        """Weights that add up to the sizes, shape (n_things,): ``clamp(size - rank, 0, 1)``."""
        return self._placed(fill(self.sizes(), self._owner, self._rank, self.counts))

    def kept(self, shift: float = 0.0) -> IntArray:
        """How many things of each row are kept when all extents move by ``shift`` within their bounds."""
        found: IntArray = (
            self._count(self._mask(self._bounded(self.offsets.detach() + shift)[self._owner])).cpu().numpy()
        )
        return found

    def least(self) -> IntArray:
        """How many things of each row the bounds leave at least."""
        return self.kept(-1e9)

    @torch.no_grad()
    def clamp_(self) -> None:
        """Bring all offsets back within their bounds."""
        self.offsets.copy_(self._bounded(self.offsets))

    def _placed(self, each: Tensor, others: float = 1.0, gone: float = 0.0) -> Tensor:
        """Values of the things in rows among all things, shape (n_things,)."""
        placed = each.new_full((self.n_things,), others).index_put((self._things,), each)
        return placed if self._gone is None else placed.index_fill(0, self._gone, gone)

    def _count(self, each: Tensor) -> Tensor:
        """How many things of each row have a value above zero, shape (n_rows,)."""
        inside = (each.detach() > 0).long()
        return inside.new_zeros(len(self)).index_add(0, self._owner, inside)

    # ---- what depends on the shape of the masks

    def sizes(self) -> Tensor:
        """The differentiable size of each row, shape (n_rows,)."""
        return sigmoid.size(self.offsets, self.tau, self.counts.double())

    def _logit(self, offsets: Tensor) -> Tensor:
        return sigmoid.logit(self._x, offsets, self.tau)

    def _mask(self, offsets: Tensor, threshold: float = THRESHOLD) -> Tensor:
        return sigmoid.mask(self._x, offsets, self.tau, threshold)

    def _bounded(self, offsets: Tensor) -> Tensor:
        return torch.maximum(offsets, self._at_least).clamp_max(sigmoid.highest(self.tau))


class FrequencyRows(Rows):
    """Frequencies of branches from 1 upwards, under sigmoid masks over [-1, 1] where the constant is -1.

    Where only a few are outside the mask, the axis keeps its samples, and all count in the costs: resampling would cost
    more than it saves. Masks act on the network, and have their gradients, all the same; but as filtering a whole axis
    makes a step dearer and never cheaper, they do so only in one of ``FILTERED_EVERY`` steps (``turn``).

    Args:
        rows: the frequencies of each axis.
        lengths: how many samples each axis has.
        least: how many frequencies of each axis must be outside for any to go.
    """

    def __init__(
        self,
        n_things: int,
        rows: Sequence[IntArray],
        lengths: Sequence[int],
        least: Sequence[int],
        tau: float,
        device: torch.device,
    ) -> None:
        super().__init__(n_things, rows, tau, device)
        grids = [spectral.coordinates(n) for n in lengths]
        self._x = (torch.cat(grids) if grids else torch.zeros(0, dtype=torch.float64)).to(device)
        self._lengths = torch.tensor(list(lengths), dtype=torch.float64, device=device)
        self._least_cut = torch.tensor(list(least), dtype=torch.int64, device=device)
        self._final: Tensor | None = None  # how many of each row are kept for good
        self._filters = True

    def turn(self, step: int) -> None:
        """Say which of the steps in which masks learn comes now, from 0: whether whole axes are filtered in it."""
        self._filters = step % FILTERED_EVERY == 0

    def masks(self, threshold: float = THRESHOLD) -> Tensor:
        """How much of each frequency there is, shape (n_things,): 0 or at least T, and above 0 where none go.

        Where none go, all are 1 in steps that do not filter, and gradients of those that do count for them, too."""
        offsets = self.offsets[self._owner]
        each = self._mask(offsets, threshold)
        whole = torch.ones_like(each)
        if self._filters:
            soft = torch.sigmoid(self._logit(offsets))
            whole = soft + (FILTERED_EVERY - 1) * (soft - soft.detach())
        return self._placed(torch.where(self._whole(each), whole, each))

    def weights(self) -> Tensor:
        """Weights that add up to the sizes, shape (n_things,)."""
        inside = self._mask(self.offsets[self._owner])
        return self._placed(self._filled_up(fill(self.sizes(), self._owner, self._rank, self.counts), inside))

    def kept(self, shift: float = 0.0) -> IntArray:
        """How many frequencies of each axis are kept when all extents move by ``shift`` within their bounds."""
        inside = self._mask(self._bounded(self.offsets.detach() + shift)[self._owner])
        whole: IntArray = self._count(self._filled_up(inside, inside)).cpu().numpy()
        return whole

    def hold_(self, units: BoolArray) -> None:
        """From now on ``shares`` are those of this choice, (n_things,) or longer."""
        kept = [int(units[row].sum()) for row in self.rows]
        self._final = torch.tensor(kept, dtype=torch.int64, device=self.counts.device)

    def shares(self, shift: float = 0.0) -> Tensor:
        """Of the samples of each axis, those that are left, shape (n_rows,), when extents move by ``shift``."""
        if self._final is not None:
            kept = self._final
        else:
            inside = self._mask(self._bounded(self.offsets.detach() + shift)[self._owner])
            kept = self._count(self._filled_up(inside, inside))
        return torch.where(kept < self.counts, (2 * kept + 1) / self._lengths, 1.0)

    def smooth_shares(self) -> Tensor:
        """``shares`` with the gradient of the sizes."""
        size = sigmoid.size(self.offsets, self.tau, self._lengths) / self._lengths
        return self.shares() + size - size.detach()

    def _filled_up(self, each: Tensor, inside: Tensor) -> Tensor:
        """``each`` with the value 1 on axes that too few have left."""
        return each + ((1 - each) * self._whole(inside)).detach()

    def _whole(self, inside: Tensor) -> Tensor:
        """For each frequency, whether too few of its axis are gone."""
        return (self.counts - self._count(inside) < self._least_cut)[self._owner]

    def sizes(self) -> Tensor:
        """Frequencies of each row: half of what the size in samples has above the constant's one."""
        samples = sigmoid.size(self.offsets, self.tau, self._lengths)
        return torch.where(samples.detach() < self._lengths, 0.0, self.counts - (self._lengths - 1) / 2) + floored(
            (samples - 1) / 2, 0.0
        )


class KernelRows(Rows):
    """Rings of kernels, from the inside outwards, under Gaussian masks; ``offsets`` are the sigmas.

    A mask reaches as far whatever the resolution: over samples that are further apart it has fewer rings.

    Args:
        rows: the rings of each kernel axis that may go.
        taps: the odd extent of each kernel; rings inside those of its row stay.
        bands: the masks over frequencies.
        within: for each row, the row of ``bands`` that its samples follow, or -1.
    """

    pace = 0.25  # a global kernel becomes a local one in about as many steps as a width goes from all to the least
    start = gaussian.GLOBAL

    def __init__(
        self,
        n_things: int,
        rows: Sequence[IntArray],
        taps: Sequence[int],
        device: torch.device,
        bands: FrequencyRows | None = None,
        within: Sequence[int] = (),
    ) -> None:
        centres = [k // 2 for k in taps]
        grids = [
            torch.arange(c - len(row) + 1, c + 1, dtype=torch.float64) / c for row, c in zip(rows, centres, strict=True)
        ]
        self._arrange(n_things, rows, grids, device)
        self.taps = torch.tensor(list(taps), dtype=torch.float64, device=device)
        self._held = torch.tensor(centres, device=device) - self.counts
        self._lowest = torch.tensor([gaussian.smallest(k) for k in taps], dtype=torch.float64, device=device)
        self.offsets = nn.Parameter(torch.full((len(rows),), self.start, dtype=torch.float64, device=device))
        self._bands = bands if max(within, default=-1) >= 0 else None
        self._within = torch.tensor(list(within), dtype=torch.int64, device=device)
        self._energies_at_first = self._energies().detach()

    def kept(self, shift: float = 0.0) -> IntArray:
        """How many rings of each row are kept when all extents, those of the frequencies too, move by ``shift``."""
        offsets = self._bounded(self.offsets.detach() + shift)[self._owner]
        found: IntArray = self._count(self._mask(offsets, shift=shift)).cpu().numpy()
        return found

    def gains(self) -> Tensor:
        """What each row's kernels are to be multiplied by to be as strong as under the first mask, shape (n_rows,)."""
        return (self._energies_at_first / self._energies()).sqrt()

    def _energies(self) -> Tensor:
        """The sum of squares of the mask over all taps of each kernel axis, at full resolution."""
        rings = gaussian.mask(self._x, self.offsets[self._owner], THRESHOLD).square()
        inner = self.taps - 2 * self.counts
        return inner + 2 * inner.new_zeros(len(self)).index_add(0, self._owner, rings)

    def sizes(self) -> Tensor:
        """Rings of each row: half of what the kernel's size (``masks.gaussian.size``) has above 1, less those held."""
        taps = gaussian.size(self.offsets, self.taps, start=self.taps, start_sigma=1 / gaussian.reach())
        if self._bands is not None:
            taps = taps * self._of_bands(self._bands.smooth_shares())
        return floored((taps - 1) / 2 - self._held, 0.0)

    def _of_bands(self, shares: Tensor) -> Tensor:
        """For each row the share of samples that its axis has left."""
        return torch.where(self._within >= 0, shares[self._within.clamp_min(0)], 1.0)

    def _places(self, shift: float = 0.0) -> Tensor:
        """Coordinates of the rings on the samples that are there."""
        if self._bands is None:
            return self._x
        return self._x / self._of_bands(self._bands.shares(shift))[self._owner]

    def _logit(self, offsets: Tensor) -> Tensor:
        exponent = -0.5 * (self._places() / offsets).square()  # the mask is its exponential
        return exponent - torch.log(-torch.expm1(exponent))

    def _mask(self, offsets: Tensor, threshold: float = THRESHOLD, shift: float = 0.0) -> Tensor:
        places = self._places(shift)
        return gaussian.mask(places, offsets, threshold) * (places <= 1 + 1e-9)

    def _bounded(self, offsets: Tensor) -> Tensor:
        return torch.maximum(offsets, self._lowest).clamp_max(gaussian.highest())


class TrainedKernels(KernelRows):
    """Kernels whose taps were trained one by one, nearly unmasked at first.

    They have few rings, and then the paper's size is no guide: it is full until the mask has taken nine tenths of the
    outermost ring, and falls from there on though that ring is gone. So their size is the number of rings that are
    there, and its gradient that of what the mask leaves of them: a ring that costs more than it is worth fades, and one
    that is worth more stays.
    """

    pace = 2.0  # from the start to where the outermost ring goes is twice as far as for a width of two thirds
    start = gaussian.highest()

    def sizes(self) -> Tensor:
        """Rings of each row that are there, shape (n_rows,)."""
        rings = self._mask(self.offsets[self._owner])
        there = (rings.detach() > 0).double()
        left = (rings - THRESHOLD * there) / (1 - THRESHOLD)
        each = there + (left - left.detach())
        return each.new_zeros(len(self)).index_add(0, self._owner, each)
