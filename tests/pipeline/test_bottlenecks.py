"""Budgets as small as can be: results run, are exact and within them, and single channels are told."""

from __future__ import annotations

import re
import warnings
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import compressor
from compressor.errors import UnreachableBudgetError
from tests.api_models import EXAMPLE, loader, net

TRAINING = compressor.Training(search_epochs=1, finetune_epochs=1, batch_size=16)
METHODS: dict[str, dict[str, Any]] = {
    "oneshot": {},
    "figs": {"least_steps": 0, "max_steps": 3},
    "dnarch": {"least_steps": 0, "max_steps": 3},
}


class Attending(nn.Module):
    """A class token over patches, with a transformer's layer."""

    def __init__(self) -> None:
        super().__init__()
        self.patches, self.token = nn.Conv2d(3, 16, 4, 4), nn.Parameter(torch.zeros(1, 1, 16))
        self.attention, self.norm = nn.MultiheadAttention(16, 4, batch_first=True), nn.LayerNorm(16)
        self.up, self.down, self.head = nn.Linear(16, 32), nn.Linear(32, 16), nn.Linear(16, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.patches(x).flatten(2).transpose(1, 2)
        x = torch.cat([self.token.expand(len(x), -1, -1), x], 1)
        x = x + self.attention(x, x, x, need_weights=False)[0]
        x = x + self.down(nn.functional.gelu(self.up(self.norm(x))))
        out: Tensor = self.head(x[:, 0])
        return out


class Separable(nn.Module):
    """Depthwise convolutions, a squeeze, groups, and a flattened head."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.norm = nn.Conv2d(3, 16, 3, 2, 1, bias=False), nn.BatchNorm2d(16)
        self.deep, self.point = nn.Conv2d(16, 16, 3, 1, 1, groups=16), nn.Conv2d(16, 32, 1)
        self.squeeze, self.excite = nn.Conv2d(32, 8, 1), nn.Conv2d(8, 32, 1)
        self.grouped, self.head = nn.Conv2d(32, 32, 3, 2, 1, groups=4), nn.Linear(32 * 4, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.point(self.deep(nn.functional.relu6(self.norm(self.stem(x))))).relu()
        x = x * self.excite(self.squeeze(x.mean((2, 3), keepdim=True)).relu()).sigmoid()
        out: Tensor = self.head(self.grouped(x).relu().flatten(1))
        return out


class Joined(nn.Module):
    """Features of two layers side by side, normalised in groups."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two, self.norm = nn.Conv2d(3, 8, 3, 2, 1), nn.Conv2d(8, 8, 3, 1, 1), nn.GroupNorm(4, 16)
        self.head = nn.Linear(16, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.one(x).relu()
        x = self.norm(torch.cat([x, self.two(x)], 1)).relu()
        out: Tensor = self.head(x.amax((2, 3)))
        return out


NETWORKS = {"residual": net, "attending": Attending, "separable": Separable, "joined": Joined}


def run(make: Any, budgets: dict[str, Any], search: str, **more: Any) -> compressor.Result:
    torch.manual_seed(0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return compressor.compress(
            make(),
            EXAMPLE,
            budgets,
            data=(loader(32), loader(16, seed=1)),
            search=search,
            options=METHODS[search],
            training=TRAINING,
            **more,
        )


def at_the_smallest(make: Any, cost: str, search: str) -> compressor.Result:
    """The result under the least budget that a method takes. A refusal says what the least is, rounded; masks that
    cannot close may say another than the units do."""
    limit = 1.0
    for _ in range(3):
        try:
            return run(make, {cost: limit}, search)
        except UnreachableBudgetError as refused:
            number, unit = re.findall(r"can be brought to is ([\d.]+) ([kM]?)", str(refused))[0]
            limit = float(number) * {"": 1.0, "k": 1e3, "M": 1e6}[unit] * 1.001
    raise AssertionError("what is told to be reachable is not")


@pytest.mark.parametrize("search", METHODS)
@pytest.mark.parametrize("network", NETWORKS)
@pytest.mark.parametrize("cost", ["flops", "params"])
def test_the_smallest_budget_gives_a_network_that_runs_and_is_exact(network: str, cost: str, search: str) -> None:
    result = at_the_smallest(NETWORKS[network], cost, search)
    (budget,) = result.report.budgets
    assert budget.reached <= budget.limit
    assert result.report.verification.error <= result.report.verification.tolerance
    assert bool(torch.isfinite(result.model.eval()(torch.randn(5, *EXAMPLE.shape[1:]))).all())
    assert all(bool(torch.isfinite(p).all()) for p in result.model.parameters())
    said = [text for text in result.report.warnings if "single channel" in text]
    one = [w.layer for w in result.report.widths if w.after == 1 and w.before >= 4]
    assert bool(said) == bool(one) or search == "dnarch"
    if said:
        assert len(said) == 1
    if said and search != "dnarch":  # whose masks cannot close as far, so that it ends above the least there is
        assert "no room for two channels" in said[0]
        assert any(layer in said[0] for layer in one)


def test_the_way_out_that_is_told_is_one() -> None:
    """A method that ends at one channel where the budget has room is told how to hold the layer, and that works."""

    def wide_goes_first(group: Any) -> Tensor:
        return torch.full((len(group),), 1e-9) if group.name == "wide" else torch.arange(len(group)).float() + 1

    def cut(**scope: Any) -> compressor.Result:
        torch.manual_seed(0)
        return compressor.compress(
            net(),
            EXAMPLE,
            {"flops": "60%"},
            search="oneshot",
            importance=wide_goes_first,
            scope=compressor.Scope(**scope),
        )

    (said,) = [text for text in cut(round_to=1).report.warnings if "single channel" in text]
    found = re.search(r"--keep '(.+)=2', in Python keep={'(.+)': 2}", said)
    assert found is not None, said
    assert found[1] == found[2] == "wide"
    held = cut(round_to=1, keep={found[2]: 2})
    assert not any("single channel" in text for text in held.report.warnings)
    assert held.report.budgets[0].reached <= held.report.budgets[0].limit


def test_what_was_asked_for_by_hand_is_no_surprise() -> None:
    told = compressor.compress(net(), EXAMPLE, {"flops": "90%"}, scope=compressor.Scope(choose={"wide": [3]})).report
    assert next(w.after for w in told.widths if w.layer == "wide") == 1
    assert not any("single channel" in text for text in told.warnings)


def test_a_loop_of_ones_own_is_told_too() -> None:
    torch.manual_seed(0)
    session = compressor.prepare(net(), EXAMPLE, {"flops": "0.5%"}, search="figs", total_steps=1)
    with pytest.warns(UserWarning, match="single channel"):
        session.finish()
