"""Resampling as matrices: what survives the crop, and what the matrices are."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from compressor.masks import sigmoid
from compressor.nn import spectral

CASES = [(n, kept) for n in (4, 7, 16, 31, 32) for kept in range(n // 2)]


def matrices(n: int, kept: int) -> tuple[Tensor, Tensor]:
    return spectral.down(n, torch.ones(kept, dtype=torch.float64)), spectral.up(n, kept)


def wave(n: int, k: int, phase: float) -> Tensor:
    return torch.cos(2 * math.pi * k * torch.arange(n, dtype=torch.float64) / n + phase)


@pytest.mark.parametrize(("n", "kept"), CASES)
def test_constants_and_sinusoids_in_the_band_survive(n: int, kept: int) -> None:
    down, up = matrices(n, kept)
    samples = spectral.samples(n, kept)
    assert down.shape == (samples, n)
    assert up.shape == (n, samples)
    for k in range(kept + 1):
        x = wave(n, k, 0.3 * k)
        torch.testing.assert_close(down @ x, wave(samples, k, 0.3 * k))  # the same function on fewer samples
        torch.testing.assert_close(up @ (down @ x), x)


@pytest.mark.parametrize(("n", "kept"), CASES)
def test_what_is_above_the_band_is_gone(n: int, kept: int) -> None:
    down, _ = matrices(n, kept)
    for k in range(kept + 1, n // 2 + 1):
        torch.testing.assert_close(down @ wave(n, k, 0.2), torch.zeros(spectral.samples(n, kept), dtype=torch.float64))


@pytest.mark.parametrize(("n", "kept"), [(16, 5), (15, 3)])
def test_the_matrix_is_transform_mask_crop_and_back(n: int, kept: int) -> None:
    band = torch.rand(kept, dtype=torch.float64)
    x = torch.randn(3, n, dtype=torch.float64)
    spectrum = torch.fft.rfft(x)[:, : kept + 1] * torch.cat([torch.ones(1), band])
    m = spectral.samples(n, kept)
    torch.testing.assert_close(x @ spectral.down(n, band).T, torch.fft.irfft(spectrum, n=m) * m / n)


def test_coordinates_run_from_the_constant_to_nyquist() -> None:
    assert spectral.coordinates(8).tolist() == [-0.5, 0, 0.5, 1]
    assert spectral.samples(8, 4) == 8
    assert spectral.samples(8, 3) == 7
    assert spectral.samples(9, 0) == 1


@pytest.mark.parametrize(("tau", "share"), [(25.0, 0.1028), (50.0, 0.0514), (100.0, 0.0257)])
def test_the_smallest_resolution(tau: float, share: float) -> None:
    n = 1000
    mask = sigmoid.mask(spectral.coordinates(n), sigmoid.lowest(tau), tau)
    assert spectral.samples(n, int((mask > 0).sum())) / n == pytest.approx(share, abs=0.002)
    highest = sigmoid.mask(spectral.coordinates(n), sigmoid.highest(tau), tau)
    assert highest[-1].item() == pytest.approx(0.85)


def test_axes_apart() -> None:
    x = torch.randn(2, 3, 8, 6, dtype=torch.float64)
    (down, up), (down2, up2) = matrices(8, 2), matrices(6, 1)
    small = spectral.resample(x, (down, down2))
    torch.testing.assert_close(small, torch.einsum("ah,bw,nchw->ncab", down, down2, x))
    torch.testing.assert_close(spectral.resample(small, (up, up2)), torch.einsum("ha,wb,ncab->nchw", up, up2, small))
    assert spectral.resample(x, (None, down2)).shape == (2, 3, 8, 3)
    assert spectral.resample(x, (down, None)).shape == (2, 3, 5, 6)
    assert spectral.resample(x, (None, None)) is x


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize(("n", "kept"), [(8, 2), (9, 3), (7, 0)])
def test_transforms_do_what_the_matrices_do(n: int, kept: int, layout: torch.memory_format) -> None:
    torch.manual_seed(0)
    x = torch.randn(2, 3, n, 6, dtype=torch.float64).contiguous(memory_format=layout)
    band = torch.rand(kept, dtype=torch.float64, requires_grad=True)
    ways = {
        "matrices": (spectral.down(n, band), spectral.up(n, kept)),
        "transforms": (spectral.gains(spectral.samples(n, kept), band), spectral.gains(n)),
    }
    found = {}
    for way, (down, up) in ways.items():
        y = spectral.resample(x, (down, None))
        z = spectral.resample(y, (up, None))
        found[way] = y, z, *torch.autograd.grad(z[..., :4].sin().sum(), [band] if kept else [y], retain_graph=True)
    for one, other in zip(*found.values(), strict=True):
        torch.testing.assert_close(one, other)


@pytest.mark.parametrize("n", [7, 8, 33])
def test_a_low_pass_multiplies_each_frequency(n: int) -> None:
    torch.manual_seed(0)
    band, x = torch.rand(n // 2, dtype=torch.float64), torch.randn(n, dtype=torch.float64)
    spectrum = torch.fft.rfft(x) * torch.cat([torch.ones(1), band])
    torch.testing.assert_close(spectral.low_pass(n, band) @ x, torch.fft.irfft(spectrum, n=n), rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(spectral.low_pass(n, torch.ones_like(band)), torch.eye(n, dtype=torch.float64))
    bands = torch.rand(3, n // 2, dtype=torch.float64)
    for matrix, factors, each in zip(spectral.low_pass(n, bands), spectral.gains(n, bands), bands, strict=True):
        torch.testing.assert_close(matrix, spectral.low_pass(n, each))
        torch.testing.assert_close(factors, spectral.gains(n, each))


@pytest.mark.parametrize("taps", [3, 5, 15])
def test_coarser_kernels_keep_constants_and_are_the_same_at_the_same_spacing(taps: int) -> None:
    torch.testing.assert_close(spectral.coarser(taps, 1.0), torch.eye(taps, dtype=torch.float64))
    for spacing in (1.1, 1.7, 3.0):
        torch.testing.assert_close(spectral.coarser(taps, spacing).sum(0), torch.ones(taps, dtype=torch.float64))


def test_coarser_kernels_have_the_same_response() -> None:
    spacing, at = 1.6, torch.arange(31, dtype=torch.float64) - 15
    kernel = torch.exp(-0.5 * ((at - 1.3) / 2) ** 2) * torch.cos(at)
    coarse = spectral.coarser(31, spacing) @ kernel
    for rate in (0.0, 0.3, 0.9, 1.4):
        fine = (kernel * torch.exp(1j * rate * at)).sum()
        torch.testing.assert_close((coarse * torch.exp(1j * rate * spacing * at)).sum(), fine, rtol=0.02, atol=0.02)
