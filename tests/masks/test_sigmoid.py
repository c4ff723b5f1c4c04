"""Sigmoid masks: the numbers of the paper."""

from __future__ import annotations

import math

import pytest
import torch

from compressor.masks import sigmoid, straight_through

TAUS = [8.0, 16.0, 25.0, 50.0, 100.0]


@pytest.mark.parametrize("tau", TAUS)
def test_mask_at_its_bounds(tau: float) -> None:
    first = sigmoid.mask(sigmoid.coordinates(2)[:1], sigmoid.lowest(tau), tau)
    last = sigmoid.mask(sigmoid.coordinates(2)[1:], sigmoid.highest(tau), tau)
    assert first.item() == pytest.approx(0.95, abs=1e-12)
    assert last.item() == pytest.approx(0.85, abs=1e-12)
    assert sigmoid.lowest(tau) == pytest.approx(-1 + 2.9444 / tau, abs=1e-4 / tau)
    assert sigmoid.highest(tau) == pytest.approx(1 + 1.7346 / tau, abs=1e-4 / tau)


@pytest.mark.parametrize("tau", TAUS)
def test_mask_is_the_threshold_at_the_crossing(tau: float) -> None:
    x = sigmoid.crossing(0.3, tau)
    assert x == pytest.approx(0.3 + 2.1972 / tau, abs=1e-4 / tau)
    at = sigmoid.mask(torch.tensor([x - 1e-9, x + 1e-9], dtype=torch.float64), 0.3, tau)
    assert at[0].item() == pytest.approx(0.1, abs=1e-6)
    assert at[1].item() == 0
    assert sigmoid.offset(x, tau) == pytest.approx(0.3)


@pytest.mark.parametrize(("tau", "percent"), [(25.0, 10.28), (50.0, 5.14), (100.0, 2.57)])
def test_smallest_fraction(tau: float, percent: float) -> None:
    mu = torch.tensor(sigmoid.lowest(tau), dtype=torch.float64)
    assert 100 * sigmoid.size(mu, tau, 1.0).item() == pytest.approx(percent, abs=0.005)
    assert sigmoid.size(mu, tau, 1.0).item() == pytest.approx(5.1417 / (2 * tau), rel=1e-4)


def test_smallest_width_of_the_papers_tables() -> None:
    assert sigmoid.count(sigmoid.lowest(25.0), 25.0, 280) == 29


@pytest.mark.parametrize("tau", TAUS)
def test_base_size_start_is_half_of_a_doubled_network(tau: float) -> None:
    mu = sigmoid.offset(0.0, tau)
    assert mu == pytest.approx(-2.1972 / tau, abs=1e-4 / tau)
    learned = torch.tensor(mu, dtype=torch.float64)
    assert sigmoid.size(learned, tau, 280.0, start=140.0, start_crossing=0.0).item() == pytest.approx(140)
    assert sigmoid.size(learned, tau, 280.0).item() == pytest.approx(140)  # both forms are the same line
    assert sigmoid.count(mu - 1e-9, tau, 280) == 140


def test_the_cap_keeps_the_gradient() -> None:
    mu = torch.tensor(sigmoid.highest(25.0), dtype=torch.float64, requires_grad=True)
    size = sigmoid.size(mu, 25.0, 280.0)
    assert size.item() == 280
    (gradient,) = torch.autograd.grad(size, mu)
    assert gradient.item() == pytest.approx(140)  # 280 / 2 per unit of mu, as below the cap


def test_the_count_follows_the_size_within_one() -> None:
    for mu in torch.linspace(sigmoid.lowest(25.0), sigmoid.highest(25.0), 97, dtype=torch.float64):
        for places in (7, 64, 280):
            size = sigmoid.size(mu, 25.0, float(places)).item()
            assert abs(sigmoid.count(mu.item(), 25.0, places) - size) <= 1


def test_a_single_place_is_never_lost() -> None:
    assert sigmoid.count(sigmoid.lowest(8.0), 8.0, 1) == 1


def test_weights_of_places_add_up_to_the_size_and_pass_its_gradient() -> None:
    sizes = torch.tensor([2.25, 3.0, 4.0], dtype=torch.float64, requires_grad=True)
    owner, rank = torch.arange(3).repeat_interleave(4), torch.arange(4).repeat(3)
    weights = straight_through.fill(sizes, owner, rank, torch.tensor([4, 4, 4]))
    assert weights.tolist() == [1, 1, 0.25, 0, 1, 1, 1, 0, 1, 1, 1, 1]
    price = torch.arange(12, dtype=torch.float64)
    (gradient,) = torch.autograd.grad((weights * price).sum(), sizes)
    assert gradient.tolist() == [2, 7, 11]  # the place at the frontier; of the full one, the last


def test_loss_is_zero_at_the_target() -> None:
    mu = torch.tensor(sigmoid.offset(0.0, 25.0), dtype=torch.float64, requires_grad=True)
    loss = (sigmoid.size(mu, 25.0, 64.0) / 32.0 - 1).square()
    assert loss.item() == pytest.approx(0, abs=1e-24)
    assert torch.autograd.grad(loss, mu)[0].item() == pytest.approx(0, abs=1e-10)


def test_hard_keeps_the_gradient() -> None:
    soft = torch.tensor([0.9, 0.2, 0.0], requires_grad=True)
    found = straight_through.hard(soft)
    assert found.tolist() == [1, 1, 0]
    assert torch.autograd.grad(found.sum(), soft)[0].tolist() == [1, 1, 1]


def test_reach_is_the_logit_of_the_threshold() -> None:
    assert sigmoid.reach() == pytest.approx(2.1972, abs=1e-4)
    assert sigmoid.reach(0.5) == pytest.approx(0)
    assert math.isclose(sigmoid.reach(0.2), math.log(4))
