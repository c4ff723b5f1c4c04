"""Least widths and channels chosen by hand hold under every method, budget and grid."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import compressor
from compressor.errors import UnreachableBudgetError, UsageError
from compressor.graph import capture
from compressor.search.constraints.wanted import wanted
from compressor.search.constraints.wishes import LeastWidths
from tests.search.search_models import EXAMPLE, NARROWING, NETWORKS, data, plain, residual

METHOD_NAMES = NARROWING


def batches() -> list[Any]:
    return list(data(64).train.batches(16))


def compress(model: nn.Module, search: str, budget: str = "40%", **rest: Any) -> compressor.Result:
    learn = rest.pop("learn", "width")
    if search != "oneshot":
        rest |= {"data": (batches(), batches()), "search_epochs": 2, "finetune_epochs": 0}
    if search == "dnarch":
        rest["options"] = {"learn": learn}
    return compressor.compress(model, EXAMPLE, {"flops": budget}, search=search, **rest)


def width(result: compressor.Result, layer: str, axis: int = 0) -> int:
    return len(result.architecture.kept(f"{layer}.weight", axis))


@pytest.mark.parametrize("search", METHOD_NAMES)
@pytest.mark.parametrize("round_to", [None, 1, 3])
def test_least_widths_hold(search: str, round_to: int | None) -> None:
    result = compress(residual(), search, "65%", keep={"1.conv1": "75%", "2*": 20, "0": "50%"}, round_to=round_to)
    removed = [layer for layer in ("1.conv1", "2.conv1") if result.architecture.is_removed(f"{layer}.weight")]
    assert not removed
    assert width(result, "1.conv1") >= 18
    assert width(result, "2.conv1") >= 20
    assert width(result, "0") >= 8
    assert all(budget.met for budget in result.report.budgets)
    assert any("as asked: 2*=20" in fixed.reason for fixed in result.report.fixed)
    if round_to == 3:
        assert width(result, "1.conv1") % 3 == 0


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("network", NETWORKS)
def test_any_least_widths_hold(network: str, seed: int) -> None:
    draw = np.random.default_rng(seed)
    model = NETWORKS[network](seed)
    layers = [name for name, module in model.named_modules() if isinstance(module, (nn.Conv2d, nn.Linear))]
    shares = {name: float(draw.integers(1, 90)) for name in draw.choice(layers, size=3, replace=False)}
    keep = {name: f"{share:g}%" for name, share in shares.items()}
    budget = f"{draw.integers(55, 90)}%"
    try:
        result = compressor.compress(model, EXAMPLE, {"params": budget}, keep=keep, round_to=int(draw.integers(1, 5)))
    except UnreachableBudgetError as error:
        assert next(iter(keep)) in str(error) or "=" in str(error)  # noqa: PT017
        return
    for name, share in shares.items():
        whole = model.get_submodule(name).weight.shape[0]  # type: ignore[union-attr,operator,index]
        assert width(result, name) >= math.ceil(share / 100 * whole - 1e-9), name  # type: ignore[arg-type,operator]


def test_of_several_patterns_the_largest_wins() -> None:
    model = residual()
    keep = ["1.conv1=25%", "1*=50%", "1.conv1=4"]
    result = compress(model, "oneshot", "60%", keep=keep, round_to=1)
    assert width(result, "1.conv1") >= 12


def test_what_is_reachable_says_what_is_held() -> None:
    with pytest.raises(UnreachableBudgetError, match=r"brought to with \*=90% is .*ask to keep less"):
        compress(residual(), "oneshot", "20%", keep={"*": "90%"})
    compress(residual(), "oneshot", "20%")


@pytest.mark.parametrize("search", ["figs", "dnarch"])
def test_blocks_with_a_layer_that_is_held_stay(search: str) -> None:
    free = compress(residual(), search, "30%", learn="width,depth")
    held = compress(residual(), search, "60%", keep={"*.conv1": "30%"}, learn="width,depth")
    assert len(free.architecture.removed) >= 0
    assert not held.report.blocks_removed


@pytest.mark.parametrize("search", METHOD_NAMES)
@pytest.mark.parametrize("budget", ["60%", "100%"])
def test_channels_chosen_by_hand_are_those_kept(search: str, budget: str) -> None:
    kept = {"1.conv1": [0, 3, 5, 11], "0": [1, 2, 3, 4, 5, 6, 7, 8, 9, 15]}
    result = compress(residual(), search, budget, choose=kept)
    for layer, channels in kept.items():
        assert result.architecture.kept(f"{layer}.weight", 0) == channels
    assert result.architecture.kept("1.conv2.weight", 1) == kept["1.conv1"]
    assert all(each.met for each in result.report.budgets)


@pytest.mark.parametrize("search", ["figs", "dnarch"])
def test_both_hold_in_a_loop_of_ones_own(search: str) -> None:
    model = residual()
    options = {"learn": "width"} if search == "dnarch" else None
    session = compressor.prepare(
        model,
        EXAMPLE,
        {"flops": "60%"},
        search=search,
        options=options,
        total_steps=12,
        keep="2.conv1=90%",
        choose={"1.conv1": [2, 4]},
    )
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    for inputs, targets in (*batches(), *batches(), *batches()):
        loss = nn.functional.cross_entropy(model(inputs), targets) + session.cost_loss()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        session.step()
    small: Any = session.finish()
    assert session.architecture.kept("1.conv1.weight", 0) == [2, 4]
    assert small[2].conv1.out_channels >= 22


@pytest.mark.parametrize(
    ("keep", "said"),
    [
        ({"conv9": "50%"}, "matches the keep pattern"),
        ({"conv1": 99}, "widest layer that it matches has 16"),
        ({"conv1": "0%"}, "keep must be"),
        ({"conv1": "101%"}, "keep must be"),
        ({"conv1": 0}, "keep must be"),
        ({"conv1": 1.5}, "keep must be"),
        ({"conv1": True}, "keep must be"),
        ({"": 3}, "keep must be"),
        ({3: 3}, "keep must be"),
        ("conv1", "keep must be"),
        ("conv1=", "keep must be"),
        (["conv1=%"], "keep must be"),
        (3, "keep must be"),
    ],
)
def test_least_widths_that_cannot_be_are_refused(keep: Any, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        compressor.compress(plain(), EXAMPLE, {"flops": "50%"}, keep=keep)


@pytest.mark.parametrize(
    ("choose", "said"),
    [
        ({"conv1": []}, "one at least"),
        ({"conv1": [1, 1]}, "each channel once"),
        ({"conv1": [16]}, "no channel 16; it has channels 0 to 15"),
        ({"conv1": [-1]}, "choose must be"),
        ({"conv1": [1.5]}, "choose must be"),
        ({"conv1": "0,1"}, "choose must be"),
        ({"conv1": 3}, "choose must be"),
        ({"conv7": [1]}, "did you mean conv"),
        ({"head": [0]}, "cannot keep 0 alone: 1, 2, 3 would stay"),
        ([0, 1], "choose must be"),
        ({3: [1]}, "choose must be"),
    ],
)
def test_choices_that_cannot_be_are_refused(choose: Any, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        compressor.compress(plain(), EXAMPLE, {"flops": "50%"}, choose=choose)


def test_layers_that_share_channels_are_chosen_once() -> None:
    with pytest.raises(UsageError, match="different channels"):
        compress(residual(), "oneshot", choose={"1.conv2": [0, 1], "2.conv2": [1, 2]})
    with pytest.raises(UsageError, match="at least"):
        compress(residual(), "oneshot", choose={"1.conv1": [0, 1]}, keep={"1.conv1": "50%"})
    result = compress(residual(), "oneshot", "60%", choose={"1.conv2": [0, 1, 5], "2.conv2": [0, 1, 5]})
    assert result.architecture.kept("0.weight", 0) == [0, 1, 5]


def test_channels_that_only_go_together_are_chosen_together() -> None:
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.Flatten(), nn.Linear(8 * 36, 12), nn.ReLU(), nn.Linear(12, 4))
    grouped = nn.Sequential(nn.Conv2d(3, 8, 1), nn.Conv2d(8, 16, 1, groups=4), nn.ReLU(), nn.Conv2d(16, 2, 1))
    kept = compressor.compress(model, EXAMPLE, {"params": "90%"}, choose={"0": [0, 7]}).architecture
    assert len(kept.kept("2.weight", 1)) == 72
    with pytest.raises(UsageError, match="would stay with them"):
        compressor.compress(grouped, EXAMPLE, {"params": "90%"}, choose={"1": [0, 5]})
    found = compressor.compress(grouped, EXAMPLE, {"params": "90%"}, choose={"1": [0, 1, 4, 5]}).architecture
    assert found.kept("1.weight", 0) == [0, 1, 4, 5]


class Attending(nn.Module):
    """Heads and their dimensions can go apart."""

    def __init__(self) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(32, 4, batch_first=True)
        self.head = nn.Linear(32, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y: torch.Tensor = self.head(x + self.attention(x, x, x, need_weights=False)[0])
        return y


@pytest.mark.parametrize("share", [10, 30, 50])
def test_heads_and_their_dimensions_keep_a_share_together(share: int) -> None:
    model = Attending()
    graph = capture(model, torch.randn(1, 5, 32))
    held = wanted(model, graph, LeastWidths().read(f"attention={share}%"))
    units = graph.all_units()
    for index, n in held.least.items():
        units[graph.groups[index].units[n:]] = False
    axis = graph.parameters["attention.in_proj_weight"].axes[0]
    assert axis is not None
    assert axis.factors.shape[1] == 2
    assert share / 100 <= axis.keep(units).mean() < 1
