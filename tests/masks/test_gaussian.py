"""Gaussian masks: the numbers of the paper."""

from __future__ import annotations

import pytest
import torch

from compressor.masks import gaussian


def test_crossing() -> None:
    assert gaussian.crossing(1.0) == pytest.approx(2.14597, abs=1e-5)
    x = gaussian.crossing(0.2)
    at = gaussian.mask(torch.tensor([x - 1e-9, x + 1e-9], dtype=torch.float64), 0.2)
    assert at[0].item() == pytest.approx(0.1, abs=1e-6)
    assert at[1].item() == 0


def test_the_start_covers_local_to_global() -> None:
    assert gaussian.count(gaussian.GLOBAL, 31) == 31  # x_T above 1
    assert gaussian.count(gaussian.SMALL, 31) == 3


def test_size_at_the_start_and_along_sigma() -> None:
    sigma = torch.tensor(0.1, dtype=torch.float64, requires_grad=True)
    size = gaussian.size(sigma, 33.0, start=7.0, start_sigma=0.1)
    assert size.item() == pytest.approx(7)
    assert torch.autograd.grad(size, sigma)[0].item() == pytest.approx(70)


def test_the_cap_keeps_the_gradient() -> None:
    sigma = torch.tensor(0.5, dtype=torch.float64, requires_grad=True)
    size = gaussian.size(sigma, 33.0, start=7.0, start_sigma=0.1)
    assert size.item() == 33
    assert torch.autograd.grad(size, sigma)[0].item() == pytest.approx(70)


@pytest.mark.parametrize("places", [3, 7, 31, 33])
def test_the_smallest_sigma_keeps_the_centre_alone(places: int) -> None:
    sigma = gaussian.smallest(places)
    assert gaussian.count(sigma, places) == 1
    assert 2 * gaussian.crossing(sigma) == pytest.approx(2 / places)  # one of the samples that [-1, 1] is cut into


@pytest.mark.parametrize("sigma", [0.05, 0.1, 0.3, 0.5])
def test_an_odd_number_of_places_keeps_an_odd_number(sigma: float) -> None:
    assert gaussian.count(sigma, 31) % 2 == 1


def test_the_product_of_two_axes() -> None:
    both = gaussian.product_mask((5, 7), (0.3, 0.2))
    one, other = gaussian.product_mask((5,), (0.3,)), gaussian.product_mask((7,), (0.2,))
    assert torch.equal(both, one[:, None] * other[None, :])
    assert both[2, 3].item() == 1
