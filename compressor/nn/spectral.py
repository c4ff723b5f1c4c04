"""Resolution as a length of spectra (DNArch, section 3.2 and appendix B): low-pass, crop, and back.

A signal of ``n`` samples has frequencies 0 to ``n // 2``; frequency k stands at ``x = 2 k / (n / 2) - 1``, so that -1
is the constant and 1 the Nyquist frequency. Keeping the frequencies up to K leaves ``2 K + 1`` samples, or all n when
none is cut. Amplitudes are kept: constants and sinusoids within the band come through as they are. ``down`` and ``up``
are the transforms, the crop and the inverse transforms in one matrix each (appendix B.4), which every runtime can
multiply by; an odd number of samples leaves no frequency that would belong to both ends.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

CPU = torch.device("cpu")
LONGEST = 64  # samples that matrices are quicker for than transforms


def _kept(many: int) -> Callable[[Callable[..., Tensor]], Callable[..., Tensor]]:
    """Keeps the last results, made outside inference mode wherever they are asked for: others learn with them."""

    def keeping(make: Callable[..., Tensor]) -> Callable[..., Tensor]:
        def made(*args: Any) -> Tensor:
            with torch.inference_mode(False), torch.no_grad():
                return make(*args)

        return functools.lru_cache(maxsize=many)(functools.wraps(make)(made))

    return keeping


def _remembered(make: Callable[[int, int, torch.device], Tensor]) -> Callable[..., Tensor]:
    """``make``, kept for short axes, which a search needs it for in every step."""
    short = _kept(1024)(make)

    @functools.wraps(make)
    def found(n: int, kept: int, device: torch.device = CPU) -> Tensor:
        return (short if n <= LONGEST else make)(n, kept, device)

    return found


def coordinates(n: int) -> Tensor:
    """Coordinates of the frequencies 1 to ``n // 2`` of ``n`` samples, float64, shape (n // 2,)."""
    return 4 * torch.arange(1, n // 2 + 1, dtype=torch.float64) / n - 1


def samples(n: int, kept: int) -> int:
    """How many samples the frequencies up to ``kept`` of ``n`` samples need."""
    return n if kept >= n // 2 else 2 * kept + 1


def down(n: int, band: Tensor) -> Tensor:
    """The matrix (samples, n) that keeps the constant and frequencies 1 to K, each times its entry of ``band`` (K,)."""
    kept = len(band)
    weights = torch.cat([band.new_ones(1), band.repeat_interleave(2)])
    waves, analysis = _waves(samples(n, kept), kept, band.device), _analysis(n, kept, band.device)
    return waves.to(band) @ (weights[:, None] * analysis.to(band))


@_remembered
def up(n: int, kept: int, device: torch.device = CPU) -> Tensor:
    """The matrix (n, samples) from samples of frequencies up to ``kept`` to n samples of the same function, float64.

    It may be shared: change a copy."""
    return _waves(n, kept, device) @ _analysis(samples(n, kept), kept, device)


def low_pass(n: int, band: Tensor) -> Tensor:
    """The matrix (..., n, n) that multiplies each frequency of n samples by its entry of ``band`` (..., n // 2)."""
    steps = torch.arange(n, device=band.device)
    echoes = (band - 1) @ _echoes(n).to(band)
    return torch.eye(n).to(band) + echoes[..., (steps[:, None] - steps) % n]


@_remembered
def _waves(n: int, kept: int, device: torch.device) -> Tensor:
    """Constant, cosine 1, sine 1, cosine 2, ... at n samples of one period, shape (n, 2 kept + 1)."""
    phase = 2 * math.pi * torch.arange(n, dtype=torch.float64)[:, None] * torch.arange(1, kept + 1) / n
    waves = torch.stack([phase.cos(), phase.sin()], dim=-1).flatten(1)
    return torch.cat([torch.ones(n, 1, dtype=torch.float64), waves], dim=1).to(device)


@_remembered
def _analysis(n: int, kept: int, device: torch.device) -> Tensor:
    """Amplitudes of these waves in n samples, shape (2 kept + 1, n); of frequencies below n / 2."""
    scale = torch.full((2 * kept + 1, 1), 2 / n, dtype=torch.float64)
    scale[0] = 1 / n
    return scale.to(device) * _waves(n, kept, device).T


@_kept(64)
def _echoes(n: int) -> Tensor:
    """What is left of an impulse by each frequency from 1 on, after 0 to n - 1 samples, shape (n // 2, n)."""
    frequencies = torch.arange(1, n // 2 + 1, dtype=torch.float64)[:, None]
    strength = (2 - (2 * frequencies == n).double()) / n  # at Nyquist there is a cosine alone
    return strength * torch.cos(2 * math.pi * frequencies * torch.arange(n) / n)


def gains(n: int, band: Tensor | None = None) -> Tensor:
    """What ``resample`` takes in place of a matrix to ``n`` samples, shape (..., n): factors of the frequencies from
    the constant on, which is 1, then ``band`` (..., at most n // 2); by default all are 1."""
    if band is None:
        return torch.ones(n, dtype=torch.float64)
    with_constant = torch.nn.functional.pad(band, (1, 0), value=1.0)
    return torch.nn.functional.pad(with_constant, (0, n - 1 - band.shape[-1]))


def resample(x: Tensor, matrices: tuple[Tensor | None, ...]) -> Tensor:
    """Multiply the spatial axes of ``x``, (B, C, L) or (B, C, H, W), by one matrix (to, from) each; ``None`` leaves an
    axis as it is, and ``gains`` (to,) do what a matrix would through the Fourier transform, which is quicker for long
    axes. Images that lie channels last are multiplied, and come back, as they lie."""
    if all(matrix is None for matrix in matrices):
        return x
    order = list(range(len(matrices)))
    lengths = zip(matrices, x.shape[2:], strict=True)
    if any(matrix is not None and len(matrix) > length for matrix, length in lengths):
        order.reverse()  # upwards the last axis first: fewer multiply-adds
    last = x.dim() == 4 and not x.is_contiguous() and x.is_contiguous(memory_format=torch.channels_last)
    if last:
        x = x.permute(0, 2, 3, 1)
    for d in order:
        matrix = matrices[d]
        if matrix is not None:
            x = _along(x, matrix, d, len(matrices), last)
    return x.permute(0, 3, 1, 2) if last else x


def _along(x: Tensor, matrix: Tensor, d: int, axes: int, last: bool) -> Tensor:
    if matrix.dim() == 1:
        return _through_spectrum(x, matrix, d + (1 if last else 2))
    if not last:
        return matrix @ x if d < axes - 1 else x @ matrix.T
    if d == 0:
        return (matrix @ x.flatten(2)).reshape(len(x), -1, *x.shape[2:])  # (B, H, W C)
    return matrix @ x


def _through_spectrum(x: Tensor, factors: Tensor, axis: int) -> Tensor:
    before, after = x.shape[axis], len(factors)
    shared = min(before, after) // 2 + 1
    spectrum = torch.fft.rfft(x, dim=axis).narrow(axis, 0, shared)
    spectrum = spectrum * (factors[:shared] * (after / before)).reshape(-1, *[1] * (x.dim() - 1 - axis))
    y: Tensor = torch.fft.irfft(spectrum, n=after, dim=axis)
    return y


@_kept(1024)
def coarser(taps: int, spacing: float) -> Tensor:
    """The matrix (taps, taps) that makes an odd kernel do on samples ``spacing`` (1 or more) apart what it does on
    those 1 apart, as far as so many taps can, float64.

    Column i has the samples of a band-limited impulse at tap i, scaled so that a constant comes through as it is.
    """
    at = torch.arange(taps, dtype=torch.float64) - taps // 2
    impulses = torch.sinc(at[:, None] - at / spacing)
    return impulses / impulses.sum(0)
