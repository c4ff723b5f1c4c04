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
        filtered: dict[int, list[tuple[Resolution, int, Tensor]]] = {}
        for found, rows in zip(self.resolutions, self._units, strict=True):
            if gates is not None and float(gates[found.block].detach()) <= 0:
                continue
            for d, (axis, row) in enumerate(zip(found.axes, rows, strict=True)):
                band, n = units[row.to(units.device)].double(), len(axis)
                kept = int((band.detach() > 0).sum())
                if kept < len(row):
                    yield from named(found.inputs, found.output, d, *_resampled(n, band[:kept]))
                elif bool((band < 1).any()):
                    filtered.setdefault(n, []).append((found, d, band))
        for n, those in filtered.items():  # at once: they are many and small
            bands = torch.stack([band for _, _, band in those])
            filters = spectral.gains(n, bands) if n > spectral.LONGEST else spectral.low_pass(n, bands)
            for (found, d, _), each in zip(those, filters.unbind(), strict=True):
                yield from named(found.inputs, found.output, d, each)


def _resampled(n: int, band: Tensor) -> tuple[Tensor, Tensor]:
    """Down to what ``band`` has of n samples, and up again."""
    kept = len(band)
    if n > spectral.LONGEST:
        down, up = spectral.gains(spectral.samples(n, kept), band), spectral.gains(n)
    else:
        down, up = spectral.down(n, band), spectral.up(n, kept)
    return down, up.to(band.device)
