"""The complexity of appendix C.2, written out by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import nn

from compressor.backbones.ccnn_search import SearchableCCNN
from compressor.costs import Sizes, build
from compressor.graph import capture
from compressor.graph.graph import Graph
from compressor.search.constraints.constraint import hard_sizes
from compressor.trim import trim_verified


def block(length: int, n_in: int, n_mid: int, n_out: int) -> float:
    """Norm and long convolution over N_in, two linear layers with GELUs, the scale of the output."""
    long = n_in * length * math.log2(length)
    linear = length * (n_in * n_mid + n_mid * n_out)
    return length * n_in + long + linear + length * (n_mid + n_out) + length * n_out


def ccnn(length: int, blocks: list[float], channels: int, classes: int, inputs: int) -> float:
    encoder = length * inputs * channels + 3 * length * channels  # norm, GELU and scale
    skips = len(blocks) * length * channels
    return encoder + sum(blocks) + skips + channels * classes


def traced(lengths: tuple[int, ...]) -> tuple[SearchableCCNN, torch.Tensor, Graph]:
    torch.manual_seed(0)
    model, x = SearchableCCNN(2, 12, lengths, in_channels=2, num_classes=4).eval(), torch.randn(1, 2, *lengths)
    return model, x, capture(model, x, kernels=True, resolution=True)


@pytest.mark.parametrize("lengths", [(128,), (12, 11)])
def test_a_whole_ccnn(lengths: tuple[int, ...]) -> None:
    _, _, graph = traced(lengths)
    length = math.prod(lengths)
    expected = ccnn(length, [block(length, 12, 12, 12)] * 2, 12, 4, 2)
    assert build("complexity", graph).original == pytest.approx(expected)


def test_widths_and_depth_follow_and_kernels_do_not_matter() -> None:
    _, _, graph = traced((128,))
    units, term = graph.all_units(), build("complexity", graph)
    units[graph.group("blocks.0.conv.kernel_size[0]").units[20:]] = False
    assert float(term(hard_sizes(graph, units))) == pytest.approx(term.original)
    for name, n in (("blocks.0.conv", 5), ("blocks.0.mid", 7), ("blocks.0.out", 3)):
        units[graph.group(name).units[n:]] = False
    found = float(term(hard_sizes(graph, units)))
    assert found == pytest.approx(ccnn(128, [block(128, 5, 7, 3), block(128, 12, 12, 12)], 12, 4, 2))
    gates = np.array([True, False])
    saved = found - float(term(hard_sizes(graph, units, gates)))
    assert saved == pytest.approx(block(128, 12, 12, 12))


def test_resolution_counts_in_the_length() -> None:
    _, _, graph = traced((128,))
    units, term = graph.all_units(), build("complexity", graph)
    units[graph.group("blocks.1.resolution[0]").units[20:]] = False  # 41 samples
    expected = ccnn(128, [block(128, 12, 12, 12), block(41, 12, 12, 12)], 12, 4, 2)
    found = float(term(hard_sizes(graph, units)))
    assert found == pytest.approx(expected, rel=0.03)  # what fuses with the sum behind the block is at full length


def test_it_falls_with_every_size_and_has_a_gradient() -> None:
    _, _, graph = traced((128,))
    weights = torch.full((graph.n_units,), 0.7, dtype=torch.float64, requires_grad=True)
    value = build("complexity", graph)(Sizes(graph, weights))
    value.backward()
    assert value.item() < build("complexity", graph).original
    assert weights.grad is not None
    for group in graph.groups:
        if group.kind != "kernel":
            assert bool((weights.grad[torch.from_numpy(group.units)] > 0).all())


def test_short_kernels_count_by_taps() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 8, 5, padding=2, groups=8),
                          nn.Conv2d(8, 4, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2))  # fmt: skip
    x = torch.randn(1, 3, 6, 6)
    graph = capture(model, x, kernels=True)
    expected = 36 * (27 * 8 + 8 + 25 * 8 + 32) + 8
    term = build("complexity", graph)
    assert term.original == pytest.approx(expected)
    units = graph.all_units()
    units[graph.group("2.kernel_size[0]").units] = False
    assert float(term(hard_sizes(graph, units))) == pytest.approx(expected - 36 * 8 * 20)
    smaller = capture(trim_verified(model, graph, units, x).model, x)
    assert build("complexity", smaller).original == pytest.approx(expected - 36 * 8 * 20)


@pytest.mark.parametrize(("kind", "gates"), [(nn.LSTM, 4), (nn.GRU, 3), (nn.RNN, 1)])
def test_recurrent_layers_are_products_of_what_comes_in_and_of_the_state(kind: type[nn.RNNBase], gates: int) -> None:
    class Tagger(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer, self.head = kind(5, 6, 2, bidirectional=True, batch_first=True), nn.Linear(12, 3)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.head(self.layer(x)[0])  # type: ignore[no-any-return]

    def products(hidden: int) -> int:
        layers = 2 * gates * hidden * (5 + hidden) + 2 * gates * hidden * (2 * hidden + hidden)
        return 7 * (layers + 3 * 2 * hidden)

    graph = capture(Tagger().eval(), torch.randn(1, 7, 5))
    units = graph.all_units()
    for left in (6, 4, 1):
        units[graph.group("layer").units[left:]] = False
        sizes = hard_sizes(graph, units)
        assert float(build("flops", graph)(sizes)) == products(left)
        assert float(build("complexity", graph)(sizes)) == pytest.approx(products(left))
