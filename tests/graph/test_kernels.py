"""Kernels that may be cropped: which, what is left of them, and that nothing but zeros is lost."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from compressor.architecture.architecture import Architecture
from compressor.costs import build
from compressor.graph import Graph, capture
from compressor.search.constraints.constraint import hard_sizes
from compressor.trim import trim_verified

CONVOLUTIONS: dict[str, tuple[int, dict[str, Any]]] = {
    "same": (2, {"kernel_size": 3, "padding": "same"}),
    "plain": (2, {"kernel_size": 5, "padding": 2}),
    "stride": (2, {"kernel_size": 7, "padding": 3, "stride": 2}),
    "oblong": (2, {"kernel_size": (5, 3), "padding": (2, 1), "stride": (1, 3)}),
    "one axis": (2, {"kernel_size": (1, 9), "padding": (0, 4)}),
    "dilated": (2, {"kernel_size": 3, "padding": 3, "dilation": 3, "stride": 2}),
    "little padding": (2, {"kernel_size": 7, "padding": 1}),
    "too much padding": (2, {"kernel_size": 3, "padding": 4}),
    "depthwise": (2, {"kernel_size": 5, "padding": 2, "groups": 4}),
    "reflect": (2, {"kernel_size": (5, 3), "padding": (2, 1), "padding_mode": "reflect"}),
    "circular": (2, {"kernel_size": 5, "padding": "same", "padding_mode": "circular"}),
    "sequence": (1, {"kernel_size": 9, "padding": 4, "stride": 2}),
    "sequence dilated": (1, {"kernel_size": 3, "padding": 4, "dilation": 4}),
    "volume": (3, {"kernel_size": 3, "padding": 1}),
}


def network(dims: int, settings: dict[str, Any]) -> tuple[nn.Module, Tensor]:
    torch.manual_seed(0)
    kind = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}[dims]
    layers = [kind(4, 4, 1), nn.ReLU(), kind(4, 4, **settings), nn.Flatten(2)]
    return nn.Sequential(*layers), torch.randn(2, 4, *{1: (23,), 2: (13, 14), 3: (6, 7, 5)}[dims])


def rings(graph: Graph) -> dict[str, int]:
    return {group.name: len(group) for group in graph.groups if group.kind == "kernel"}


def without_rings(graph: Graph, n: int) -> Any:
    """Everything but the outermost ``n`` rings of every kernel."""
    units = graph.all_units()
    for group in graph.groups:
        if group.kind == "kernel":
            name, d = group.members[0]
            axis = graph.parameters[name].axes[d]
            assert axis is not None
            gone = axis.factors[:n, 0]
            units[gone[gone < graph.n_units]] = False
    return units


@pytest.mark.parametrize("n", [1, 2, 9])
@pytest.mark.parametrize("name", CONVOLUTIONS)
def test_cropped_is_masked(name: str, n: int) -> None:
    model, x = network(*CONVOLUTIONS[name])
    graph = capture(model, x, kernels=True)
    units = without_rings(graph, n)
    assert not units.all()
    result = trim_verified(model, graph, units, x)
    assert result.check.passed
    assert not result.refused
    assert result.model(x).shape == model(x).shape
    before, after = model[2], result.model[2]
    assert tuple(after.weight.shape[2:]) == after.kernel_size
    for old, new in zip(before.kernel_size, after.kernel_size, strict=True):
        assert new % 2
        assert old - new <= 2 * n
    whole = before.weight
    for d, size in enumerate(after.kernel_size, start=2):
        whole = whole.narrow(d, (whole.shape[d] - size) // 2, size)
    assert torch.equal(after.weight, whole)


@pytest.mark.parametrize("name", CONVOLUTIONS)
def test_costs_are_those_of_the_cropped_network(name: str) -> None:
    model, x = network(*CONVOLUTIONS[name])
    graph = capture(model, x, kernels=True)
    units = without_rings(graph, 1)
    smaller = capture(trim_verified(model, graph, units, x).model, x)
    for cost in ("flops", "params", "memory"):
        found = float(build(cost, graph)(hard_sizes(graph, units)))
        if cost == "memory" and name in ("reflect", "circular"):  # what is padded by copying counts as before
            assert found >= build(cost, smaller).original
        else:
            assert found == build(cost, smaller).original


def test_a_trim_written_down_makes_the_same_network() -> None:
    model, x = network(*CONVOLUTIONS["reflect"])
    graph = capture(model, x, kernels=True)
    result = trim_verified(model, graph, without_rings(graph, 1), x)
    document = result.architecture.to_json()
    assert document["groups"]["2.kernel_size[0]"]["kind"] == "kernel"
    fresh, _ = network(*CONVOLUTIONS["reflect"])
    rebuilt = Architecture.from_json(document).apply_(fresh)
    torch.testing.assert_close(rebuilt(x), result.model(x))


def test_height_and_width_are_apart() -> None:
    model, x = network(2, {"kernel_size": 5, "padding": 2})
    graph = capture(model, x, kernels=True)
    units = graph.all_units()
    units[graph.group("2.kernel_size[1]").units] = False
    assert trim_verified(model, graph, units, x).model[2].kernel_size == (5, 1)


def test_only_padding_can_be_taken_back() -> None:
    model, x = network(*CONVOLUTIONS["little padding"])
    assert rings(capture(model, x, kernels=True)) == {"2.kernel_size[0]": 1, "2.kernel_size[1]": 1}


def test_kernels_stay_whole_unless_asked_for() -> None:
    model, x = network(*CONVOLUTIONS["plain"])
    graph = capture(model, x)
    assert not rings(graph)
    assert not graph.whole_kernels
    assert not rings(capture(model, x, kernels=True, exclude=("2",)))
    assert rings(capture(model, x, kernels=True, include=("2",)))
    assert not rings(capture(model, x, kernels=True, include=("0",)))


class Own(nn.Conv2d):
    """A convolution that looks at its kernel itself."""

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.conv2d(x, self.weight / self.weight.norm(), padding=1)


class Shared(nn.Module):
    """Two convolutions with one weight."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = nn.Conv2d(4, 4, 3, padding=1), nn.Conv2d(4, 4, 3, padding=1)
        self.two.weight = self.one.weight

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.two(self.one(x))
        return y


class Twice(nn.Module):
    """A convolution whose weight is read by another call, too."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(4, 4, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x) + nn.functional.conv2d(x, self.conv.weight, padding=1)


@pytest.mark.parametrize(
    ("module", "reason"),
    [
        (nn.Conv2d(4, 4, 4, padding=2), "an even kernel (4)"),
        (nn.Conv2d(4, 4, 3), "a kernel of 3 without padding"),
        (nn.ConvTranspose2d(4, 4, 3, padding=1), "a transposed convolution"),
        (Own(4, 4, 3, padding=1), "a convolution with a forward of its own"),
        (Shared(), "a weight shared with another convolution"),
        (Twice(), None),
        (nn.Conv2d(4, 4, 1), None),
    ],
)
def test_what_cannot_be_cropped_stays_and_says_why(module: nn.Module, reason: str | None) -> None:
    x = torch.randn(1, 4, 9, 9)
    graph = capture(nn.Sequential(nn.Conv2d(4, 4, 1), module), x, kernels=True)
    assert not rings(graph)
    assert set(graph.whole_kernels.values()) == ({reason} if reason else set())


def test_a_network_of_the_library_is_cropped_exactly() -> None:
    from compressor.backbones.resnet_cifar import CifarResNet

    torch.manual_seed(0)
    model, x = CifarResNet(1).eval(), torch.randn(1, 3, 32, 32)
    graph = capture(model, x, kernels=True)
    units = without_rings(graph, 1)
    source = np.random.default_rng(0)
    for group in graph.groups:
        if group.kind == "channels":
            units[group.units[source.integers(1, len(group) + 1) :]] = False
    result = trim_verified(model, graph, units, x)
    assert result.check.passed
    assert not result.refused
    assert all(m.kernel_size == (1, 1) for m in result.model.modules() if isinstance(m, nn.Conv2d))
