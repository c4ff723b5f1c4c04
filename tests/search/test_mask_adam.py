"""The optimizer of masks: Adam for one entry, one pace for all."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from compressor.search.methods.dnarch.mask_adam import MaskAdam, relative


def test_a_single_entry_moves_as_under_adam() -> None:
    mine, theirs = (nn.Parameter(torch.tensor([0.5], dtype=torch.float64)) for _ in range(2))
    optimizers = MaskAdam([mine], lr=0.01), torch.optim.Adam([theirs], lr=0.01)
    for step in range(20):
        for parameter, optimizer in zip((mine, theirs), optimizers, strict=True):
            parameter.grad = torch.tensor([0.3 - 0.02 * step], dtype=torch.float64)
            optimizer.step()
    torch.testing.assert_close(mine, theirs)


def test_steps_are_in_proportion_to_gradients_across_groups() -> None:
    first, second = nn.Parameter(torch.zeros(2)), nn.Parameter(torch.zeros(1))
    optimizer = MaskAdam([{"params": [first]}, {"params": [second]}], lr=0.01)
    for _ in range(10):
        first.grad, second.grad = torch.tensor([3.0, -1.0]), torch.tensor([0.5])
        optimizer.step()
    ratio = first[0] / second[0]
    assert ratio.item() == pytest.approx(6, rel=1e-4)
    assert first[1].item() == pytest.approx(-first[0].item() / 3, rel=1e-4)
    deviation = ((9 + 1 + 0.25) / 3) ** 0.5
    assert first[0].item() == pytest.approx(-10 * 0.01 * 3 / deviation, rel=1e-4)


def test_a_mask_moves_by_its_worth_for_its_price() -> None:
    first, second = nn.Parameter(torch.zeros(2)), nn.Parameter(torch.zeros(1))
    optimizer = MaskAdam([{"params": [first]}, {"params": [second]}], lr=0.01)
    for step in range(10):
        optimizer.prices = [torch.tensor([6.0, 2.0]) * (step + 1), torch.tensor([1.0]) * (step + 1)]
        first.grad, second.grad = torch.tensor([3.0, -1.0]), torch.tensor([0.5])
        optimizer.step()
    moved = [*first.tolist(), *second.tolist()]
    assert moved == pytest.approx([-0.1, 0.1, -0.1], rel=1e-4)


@pytest.mark.parametrize(
    ("prices", "expected"),
    [
        ([[1.0, 3.0], [2.0]], [[0.5, 1.5], [1.0]]),
        ([[0.0, 3.0], [1.0]], [[1.0, 1.5], [0.5]]),  # what saves nothing is moved by the task alone
        ([[0.0], [0.0]], [[1.0], [1.0]]),
        ([[1e-9, 1.0]], [[0.1, 2.0]]),
        ([[1.0] * 99 + [1e6]], [[0.1] * 99 + [10.0]]),
    ],
)
def test_prices_count_by_their_mean_and_within_bounds(prices: list[list[float]], expected: list[list[float]]) -> None:
    found = relative([torch.tensor(each, dtype=torch.float64) for each in prices])
    assert [each.tolist() for each in found] == [pytest.approx(each) for each in expected]


def test_what_has_no_gradient_stays_and_a_state_goes_on() -> None:
    held, moved = nn.Parameter(torch.ones(1)), nn.Parameter(torch.ones(1))
    optimizer = MaskAdam([held, moved], lr=0.1)
    optimizer.step()
    assert moved.item() == 1
    moved.grad = torch.ones(1)
    optimizer.step()
    assert held.item() == 1
    assert moved.item() == pytest.approx(0.9)
    again = nn.Parameter(moved.detach().clone())
    other = MaskAdam([nn.Parameter(torch.ones(1)), again], lr=0.1)
    other.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    for parameter, each in ((moved, optimizer), (again, other)):
        parameter.grad = torch.full((1,), 0.2)
        each.step()
    assert torch.equal(moved, again)
