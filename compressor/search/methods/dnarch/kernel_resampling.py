"""Kernels of branches at a lower resolution: they reach as far as before, over samples that are further apart.

A kernel that kept its taps would be stretched with the samples, and be another filter after each step of the
resolution, which no gradient announces. So the taps are those of the same filter on the samples that are there
(``spectral.coarser``), and what is learned stays the filter on all samples, until a decision makes it final. Frozen
kernels keep their taps.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from compressor.arrays import BoolArray
from compressor.graph.graph import Graph
from compressor.nn import spectral
from compressor.nn.tensors import Region, part

FEW_TAPS = 49  # up to which all axes of a kernel go in one product


class Coarser:
    """The kernels of one graph's branches.

    Args:
        parameters: the weights by name.
    """

    def __init__(self, graph: Graph, parameters: Mapping[str, Tensor]) -> None:
        self._branches = [
            ([(len(axis), np.unique(axis.factors[1:, 0])) for axis in found.axes], found.kernels)
            for found in graph.resolutions
        ]
        self.parameters = {name: parameters[name] for _, names in self._branches for name in names}

    def spacings(self, units: BoolArray) -> dict[str, tuple[float, ...]]:
        """How far apart samples are, along each axis, for every kernel that is not frozen where that is more than 1;
        ``units`` has shape (n_units,) or one entry more."""
        found = {}
        for axes, names in self._branches:
            apart = tuple(n / spectral.samples(n, int(units[row].sum())) for n, row in axes)
            if max(apart, default=1.0) > 1:
                found.update(dict.fromkeys((n for n in names if self.parameters[n].requires_grad), apart))
        return found

    def weights(
        self, spacings: Mapping[str, tuple[float, ...]], regions: Mapping[str, Region] | None = None
    ) -> dict[str, Tensor]:
        """The kernels at these spacings; called with regions, only those that stand there, and of them their parts."""
        if regions is None:
            regions = {name: {} for name in spacings}
        return {name: self._coarse(name, spacings[name], regions[name]) for name in spacings if name in regions}

    @torch.no_grad()
    def settle_(self, spacings: Mapping[str, tuple[float, ...]]) -> None:
        """Write these kernels into the weights."""
        for name, kernel in self.weights(spacings).items():
            self.parameters[name].copy_(kernel)

    def _coarse(self, name: str, spacing: tuple[float, ...], region: Region) -> Tensor:
        weight = self.parameters[name]
        # Every tap says something about each that is wanted.
        kernel = part(weight, {d: index for d, index in region.items() if d < 2})
        matrices = [
            part(spectral.coarser(weight.shape[d], apart), {0: region[d]} if d in region else {})
            for d, apart in enumerate(spacing, start=2)
        ]
        lengths = [len(matrix) for matrix in matrices]
        if weight[0, 0].numel() <= FEW_TAPS:
            matrices = [functools.reduce(torch.kron, matrices)]
            kernel = kernel.flatten(2)
        for d, matrix in enumerate(matrices, start=2):
            kernel = torch.tensordot(matrix.to(weight), kernel, dims=([1], [d])).movedim(0, d)
        return kernel.reshape(*kernel.shape[:2], *lengths).contiguous()
