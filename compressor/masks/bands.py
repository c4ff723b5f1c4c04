"""How branches are resampled for given masks of their frequencies: matrices, or for long axes factors of spectra."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from compressor import spectral
from compressor.graph.graph import Graph, Resolution
from compressor.resampling import named


class Bands:
    """For one graph."""

    def __init__(self, graph: Graph) -> None:
        self.resolutions = graph.resolutions
        self._units = [
            [torch.from_numpy(np.unique(axis.factors[1:, 0])) for axis in found.axes] for found in self.resolutions
        ]

    def matrices(self, units: Tensor, gates: Tensor | None = None) -> Iterator[tuple[str, str, Tensor]]:
        """Module, attribute and matrix (or ``spectral.gains``) of every axis some of whose masks are not 1, for masks
        (n_units,)."""
        for found, rows in zip(self.resolutions, self._units, strict=True):
            if gates is not None and float(gates[found.block].detach()) <= 0:
                continue
            yield from self._of(found, rows, units)

    def _of(self, found: Resolution, rows: list[Tensor], units: Tensor) -> Iterator[tuple[str, str, Tensor]]:
        for d, (axis, row) in enumerate(zip(found.axes, rows, strict=True)):
            band = units[row.to(units.device)].double()
            kept = int((band.detach() > 0).sum())
            n = len(axis)
            if kept < len(row):
                band = band[:kept]
                if n > spectral.LONGEST:
                    down, up = spectral.gains(spectral.samples(n, kept), band), spectral.gains(n)
                else:
                    down, up = spectral.down(n, band), spectral.up(n, kept)
                yield from named(found.inputs, found.output, d, down, up.to(units.device))
            elif bool((band < 1).any()):
                down = spectral.gains(n, band) if n > spectral.LONGEST else spectral.low_pass(n, band)
                yield from named(found.inputs, found.output, d, down)
