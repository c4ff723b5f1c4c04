"""Which convolutions may have another kernel, and what each alternative costs and computes."""

from __future__ import annotations

import copy
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor, nn

from compressor.architecture.architecture import Architecture
from compressor.costs import build
from compressor.errors import UnsupportedModelError, UsageError
from compressor.graph import Graph, capture
from compressor.graph.choices import add_choices
from compressor.graph.convolution_choices import require_some
from compressor.testing import ChoiceContract
from compressor.testing.networks import NETWORKS, network


def found(model: nn.Module, x: Tensor, **options: Any) -> Graph:
    model.eval()
    graph = capture(model, x)
    add_choices(model, graph, ["convolution"], {"convolution": options})
    return graph


class Mixed(nn.Module):
    """One of each: a stem, a shortcut of 3x3, ties, padding of its own kind, and a head that is a convolution."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1)
        self.one, self.two = nn.Conv2d(8, 8, 3, padding=1), nn.Conv2d(8, 8, 5, padding=2)
        self.shortcut = nn.Conv2d(8, 8, 3, padding=1)
        self.point, self.wide = nn.Conv2d(8, 8, 1), nn.Conv2d(8, 8, (1, 7), padding=(0, 3))
        self.ring = nn.Conv2d(8, 8, 3, padding=1, padding_mode="circular")
        self.even, self.up = nn.Conv2d(8, 8, 2, 2), nn.ConvTranspose2d(8, 8, 2, 2)
        self.tied, self.same = nn.Conv2d(8, 8, 3, padding=1), nn.Conv2d(8, 8, 3, padding=1)
        self.same.weight = self.tied.weight
        self.normed = torch.nn.utils.parametrizations.weight_norm(nn.Conv2d(8, 8, 3, padding=1))
        self.valid, self.head = nn.Conv2d(8, 8, 3), nn.Conv2d(8, 2, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x).relu()
        x = self.shortcut(x) + self.two(self.one(x).relu())
        x = self.wide(self.point(x)).relu()
        x = self.up(self.even(self.ring(x)))
        x = self.normed(self.same(self.tied(x).relu()))
        out: Tensor = self.head(self.valid(x).relu())
        return out


def test_what_has_a_choice_and_why_the_rest_has_none() -> None:
    graph = found(Mixed(), torch.randn(1, 3, 16, 16))
    assert [choice.name for choice in graph.choices] == ["stem", "one", "two", "wide", "valid"]
    assert graph.no_choice == {
        "shortcut": "on a shortcut",
        "point": "a 1x1 convolution",
        "ring": "padding mode circular",
        "even": "an even kernel (2) with whole padding, which no odd one can replace",
        "up": "a transposed convolution",
        "tied": "its weight is shared with another module",
        "same": "its weight is shared with another module",
        "normed": "its weight is computed from others",
        "head": "it writes an output of the network",
    }


def test_patterns_choose_the_convolutions_whatever_they_are() -> None:
    graph = found(Mixed(), torch.randn(1, 3, 16, 16), include=("point", "head", "shortcut"), exclude=("head",))
    assert [choice.name for choice in graph.choices] == ["shortcut", "point"]
    assert graph.no_choice["head"] == "excluded"
    assert graph.no_choice["stem"] == "not included"


def test_an_axis_that_a_kernel_does_not_look_along_stays() -> None:
    graph = found(Mixed(), torch.randn(1, 3, 16, 16), kernel_sizes=(3, 9), dilations=(1,))
    (wide,) = [choice for choice in graph.choices if choice.name == "wide"]
    assert [a.name for a in wide.alternatives] == ["1x7 d1", "1x3 d1", "1x9 d1"]


def test_what_the_network_has_comes_first_and_what_never_meets_the_input_is_left_out() -> None:
    graph = found(nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(), nn.Conv2d(4, 4, 1)), torch.randn(1, 3, 8, 8))
    (choice,) = graph.choices
    assert choice.alternatives[choice.current].name == "3x3 d1"
    names = [a.name for a in choice.alternatives]
    assert names == ["3x3 d1", "3x3 d3", "3x3 d7", "5x5 d1", "5x5 d3", "7x7 d1", "9x9 d1"]
    assert "3x3 d15" in graph.remarks[0] or "9x9 d15" in graph.remarks[0]


def test_paddings_below_what_small_kernels_need_leave_these_out() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 5), nn.ReLU(), nn.Conv2d(4, 4, 1))
    graph = found(model, torch.randn(1, 3, 16, 16), kernel_sizes=(3, 5, 7), dilations=(1, 3))
    (choice,) = graph.choices
    assert [a.name for a in choice.alternatives] == ["5x5 d1", "3x3 d3", "5x5 d3", "7x7 d1", "7x7 d3"]


def test_dilations_beyond_every_input_are_refused() -> None:
    model = nn.Sequential(nn.Conv1d(2, 4, 3, padding=1), nn.ReLU(), nn.Conv1d(4, 4, 1))
    with pytest.raises(UsageError, match="64, 99 reach beyond the input"):
        found(model, torch.randn(1, 2, 32), dilations=(1, 64, 99))


def test_a_network_without_any_says_which_and_why() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 1), nn.ReLU(), nn.ConvTranspose2d(4, 4, 2, 2), nn.Conv2d(4, 2, 3, padding=1))
    graph = found(model, torch.randn(1, 3, 8, 8))
    with pytest.raises(UnsupportedModelError, match=r"1x1 convolution.*transposed.*output of the network"):
        require_some(graph)
    plain = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 2))
    with pytest.raises(UnsupportedModelError, match="it has none"):
        require_some(found(plain, torch.randn(1, 4)))


@pytest.mark.parametrize("name", sorted(NETWORKS))
def test_no_network_costs_more_or_less_for_having_choices(name: str) -> None:
    model, x = network(name).eval(), torch.randn(1, 3, 8, 8)
    before, graph = capture(model, x), found(model, x)
    for cost in ("flops", "params", "memory"):
        assert build(cost, graph).original == build(cost, before).original


@pytest.mark.parametrize("stride", [1, 2, 3])
@pytest.mark.parametrize("padding", [0, 1, 2, "same"])
def test_every_alternative_keeps_the_size_of_the_output(stride: int, padding: Any) -> None:
    if padding == "same" and stride > 1:
        pytest.skip("PyTorch has no such convolution")
    conv = nn.Conv1d(2, 3, 4 if padding == "same" else 3, stride, padding=padding)
    model, x = nn.Sequential(conv, nn.ReLU(), nn.Conv1d(3, 3, 1)).eval(), torch.randn(1, 2, 23)
    graph = found(model, x)
    (choice,) = graph.choices
    shapes = {p.name: list(p.shape) for p in graph.parameters.values()}
    for alternative in choice.alternatives:
        changed = Architecture(graph.model_class, shapes, alternative.edits).apply_(copy.deepcopy(model))
        assert changed(x).shape == model(x).shape


class TestConvolutionContract(ChoiceContract):
    kind: ClassVar[str] = "convolution"

    def network(self) -> nn.Module:
        return network("residual")

    def example(self) -> Tensor:
        return torch.randn(1, 3, 8, 8, generator=torch.Generator().manual_seed(0))
