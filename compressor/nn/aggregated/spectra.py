"""Real signals to spectra in the order that products over channels want, and back.

The transform of rows (B, C, samples) ends in (B, C, F), while a product over channels per frequency is a batch of
matrices (F, B, C). At these sizes memory takes longer than arithmetic, so that on a CPU rows go through pad, transform
and transposition in pieces that stay in the cache, into buffers used again: over whole tensors the same takes twice the
time, most of it for pages of memory never touched before.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from compressor.nn.aggregated.candidates import Ints

PIECE = 1 << 20  # numbers in a piece; 4 MB in float32
PAGE = 2048  # bytes; rows that begin at multiples of it fall on the same few lines of a cache


def pieces(rows: int, each: int, device: torch.device) -> Iterator[slice]:
    """Slices of ``rows``, each of so many numbers that a piece stays in a CPU's cache; one slice elsewhere."""
    whole = device.type != "cpu" or torch.compiler.is_compiling()
    step = rows if whole else max(1, PIECE // each)
    for start in range(0, rows, step):
        yield slice(start, min(rows, start + step))


@dataclass(frozen=True)
class Place:
    """How real signals lie in what is transformed.

    Args:
        lengths: samples that are transformed, per axis.
        at: where the signals lie among them; all the others are zero, or are not read.
        flip: signals run backwards along every axis.
    """

    lengths: Ints
    at: tuple[slice, ...]
    flip: bool = False

    @property
    def frequencies(self) -> Ints:
        """Frequencies of the transform of a real signal, per axis."""
        return *self.lengths[:-1], self.lengths[-1] // 2 + 1

    @property
    def index(self) -> tuple[Any, ...]:
        """``at``, behind rows and channels."""
        return ..., *self.at

    def spectrum(self, source: Tensor, dtype: torch.dtype, buffer: Tensor | None = None) -> Tensor:
        """Of ``source`` (R, C, *samples), shape (R, C, *frequencies). A buffer (R or more, C, *lengths) is zero but
        where the last source lay."""
        axes = tuple(range(2, source.dim()))
        if buffer is None:
            buffer = source.new_zeros(*source.shape[:2], *self.lengths, dtype=dtype)
        here = buffer[: len(source)]
        here[self.index] = source.flip(axes) if self.flip else source
        found: Tensor = torch.fft.rfftn(here, dim=axes)
        return found

    def signal(self, spectrum: Tensor) -> Tensor:
        """Of a spectrum (R, C, *frequencies)."""
        axes = tuple(range(2, spectrum.dim()))
        found: Tensor = torch.fft.irfftn(spectrum, s=self.lengths, dim=axes)[self.index]
        return found.flip(axes) if self.flip else found


def to_matrices(source: Tensor, groups: int, place: Place, dtype: torch.dtype) -> Tensor:
    """The spectrum of ``source`` (R, groups * C, *samples) as matrices, shape (F, groups, R, C).

    There may be a row more, of zeros, so that frequencies do not lie a power of two apart, which makes the way back two
    to three times slower.
    """
    rows, channels = source.shape[0], source.shape[1] // groups
    count = math.prod(place.frequencies)
    spare = int(groups * rows * channels * 2 * dtype.itemsize % PAGE == 0 and source.device.type == "cpu")
    matrices = torch.empty(count, groups, rows + spare, channels, dtype=dtype.to_complex(), device=source.device)
    matrices[:, :, rows:] = 0
    buffer: Tensor | None = None
    for part in pieces(rows, groups * channels * math.prod(place.lengths), source.device):
        if buffer is None:
            buffer = source.new_zeros(part.stop, groups * channels, *place.lengths, dtype=dtype)
        spectrum = place.spectrum(source[part], dtype, buffer).reshape(-1, groups, channels, count)
        matrices[:, :, part] = spectrum.permute(3, 1, 0, 2)
    return matrices


def from_matrices(matrices: Tensor, rows: int, place: Place) -> Tensor:
    """The signals (rows, groups * C, *samples) of a spectrum (F, groups, rows or more, C)."""
    channels = matrices.shape[1] * matrices.shape[3]
    result: Tensor | None = None
    for part in pieces(rows, channels * math.prod(place.lengths), matrices.device):
        spectrum = matrices[:, :, part].permute(2, 1, 3, 0)
        signal = place.signal(spectrum.reshape(-1, channels, *place.frequencies))
        if result is None:
            if part.stop == rows:
                return signal.clone(memory_format=torch.contiguous_format)  # no view: it may be changed in place
            result = signal.new_empty(rows, *signal.shape[1:])
        result[part] = signal
    assert result is not None
    return result
