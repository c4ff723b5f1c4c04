"""How branches are resampled for given masks of their frequencies: matrices, or for long axes factors of spectra."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from compressor.graph.graph import Graph, Resolution
from compressor.nn import spectral
from compressor.nn.resampling import named


class Bands:
    """For one graph."""

    def __init__(self, graph: Graph) -> None:
        self._axes = [(found, d, len(axis)) for found in graph.resolutions for d, axis in enumerate(found.axes)]
        rows = [np.unique(found.axes[d].factors[1:, 0]) for found, d, _ in self._axes]
        self._lengths = [len(row) for row in rows]
        self._units = torch.from_numpy(np.concatenate([np.zeros(0, dtype=np.int64), *rows]))

    def matrices(self, units: Tensor, gates: Tensor | None = None) -> Iterator[tuple[str, str, Tensor]]:
        """Module, attribute and matrix (or ``spectral.gains``) of every axis some of whose masks are not 1, for masks
        (n_units,)."""
        if not self._axes:
            return
        self._units = self._units.to(units.device)
        bands = units[self._units].double()
        known = np.split(bands.detach().cpu().numpy(), np.cumsum(self._lengths)[:-1])  # all at once: a GPU has to wait
        there = None if gates is None else gates.detach().cpu().numpy() > 0
        filtered: dict[int, list[tuple[Resolution, int, Tensor]]] = {}
        for (found, d, n), band, values in zip(self._axes, torch.split(bands, self._lengths), known, strict=True):
            if there is not None and not there[found.block]:
                continue
            kept = int((values > 0).sum())
            if kept < len(values):
                yield from named(found.inputs, found.output, d, *_resampled(n, band[:kept]))
            elif (values < 1).any():
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
        return spectral.gains(spectral.samples(n, kept), band), spectral.gains(n).to(band.device)
    return spectral.down(n, band), spectral.up(n, kept, band.device)
