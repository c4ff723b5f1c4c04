"""Kernels of branches at a lower resolution do what they did at the full one."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from compressor.backbones.ccnn_search import SearchableCCNN
from compressor.costs import build
from compressor.graph import capture
from compressor.masks import gaussian, sigmoid
from compressor.masks.ordered import FrequencyRows, KernelRows
from compressor.nn import spectral
from compressor.nn.generated import computed
from compressor.nn.tensors import Region, part
from compressor.search.constraints.constraint import Constraint
from compressor.search.constraints.projector import Projector
from compressor.search.methods.dnarch.config import DnarchConfig
from compressor.search.methods.dnarch.kernel_resampling import Coarser
from compressor.search.methods.dnarch.learner import DnarchLearner
from tests.search.search_models import Residual

CPU = torch.device("cpu")


def session(model: nn.Module, x: Tensor, **settings: object) -> DnarchLearner:
    graph = capture(model, x, kernels=True, resolution=True)
    term = build("flops", graph)
    projector = Projector(graph, [Constraint(term, 0.5 * term.original)])
    scores = np.zeros(graph.n_units), np.zeros(len(graph.blocks))
    return DnarchLearner(model, projector, DnarchConfig(**settings), scores)  # type: ignore[arg-type]


class Smooth(nn.Module):
    """A residual block whose kernels pass low frequencies."""

    def __init__(self, taps: int, channels: int = 64) -> None:
        super().__init__()
        self.conv = nn.Conv1d(channels, channels, taps, padding=taps // 2)
        at = torch.arange(taps) - taps // 2
        with torch.no_grad():
            self.conv.weight.copy_(torch.randn(channels, channels, 1) * torch.exp(-0.5 * (at / 2.0) ** 2))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.conv(x)


@pytest.mark.parametrize("spacing", [1.6, 2.2])
def test_a_branch_at_a_lower_resolution_filters_as_before(spacing: float) -> None:
    torch.manual_seed(0)
    model, n = nn.Sequential(Smooth(13), nn.Conv1d(64, 2, 1)).eval(), 64
    masks = session(model, torch.randn(1, 64, n), learn=("resolution",))
    low = torch.cos(2 * torch.pi * torch.arange(64)[:, None] / 6 * torch.arange(n) / n)[None]
    window = torch.hann_window(n)  # nothing at the borders, where zeros are padded
    with torch.no_grad():
        whole = model(low * window)
        masks.resolution.offsets.fill_(sigmoid.offset(2 / spacing - 1, 25.0))
        masks.before_step(1, 100)
        assert masks.resolution.kept()[0] < n // 2
        found = masks.forward(model, low * window)
        masks.coarser.spacings = lambda units: {}  # type: ignore[method-assign]
        stretched = masks.forward(model, low * window)
    error, other = (float((y - whole).square().mean() / whole.square().mean()) for y in (found, stretched))
    assert error < 1e-3
    assert other > 10 * error


def test_only_kernels_of_their_own_are_resampled() -> None:
    torch.manual_seed(0)
    shared = Residual(8, 8)
    model = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), shared, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 2))
    graph = capture(model, torch.randn(1, 3, 8, 8), resolution=True)
    (found,) = graph.resolutions
    names = {name for name, p in model.named_parameters() if p.dim() == 4 and p.shape[2] > 1}
    assert set(found.kernels) == names - {"0.weight"}


def test_regions_are_parts_of_the_whole() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(Smooth(7), nn.Conv1d(64, 2, 1))
    graph = capture(model, torch.randn(1, 64, 32), resolution=True)
    coarser = Coarser(graph, dict(model.named_parameters()))
    units = graph.all_units()
    assert coarser.spacings(units) == {}
    units[graph.groups[-1].units[9:]] = False
    apart = coarser.spacings(units)
    assert apart == {"0.conv.weight": (32 / 19,)}
    (whole,) = coarser.weights(apart).values()
    region: Region = {0: torch.tensor([1, 3]), 1: (0, 2), 2: (2, 3)}
    torch.testing.assert_close(coarser.weights(apart, {"0.conv.weight": region})["0.conv.weight"], part(whole, region))
    assert coarser.weights(apart, {"1.weight": {}}) == {}
    coarser.settle_(apart)
    assert torch.equal(model[0].conv.weight, whole)


@pytest.mark.parametrize("taps", [(3, 3), (5, 7), (9, 9)])
def test_kernels_are_resampled_along_each_axis(taps: tuple[int, int]) -> None:
    torch.manual_seed(0)
    padding = (taps[0] // 2, taps[1] // 2)
    model = nn.Sequential(Residual(16, 16), nn.Conv2d(16, 2, 1))
    model[0].conv1 = nn.Conv2d(16, 16, taps, padding=padding)
    graph = capture(model, torch.randn(1, 16, 16, 16), resolution=True)
    name = "0.conv1.weight"
    weight = model.get_parameter(name)
    coarser = Coarser(graph, dict(model.named_parameters()))
    apart = (1.5, 2.2)
    want = torch.einsum(
        "ai,bj,ocij->ocab", *(spectral.coarser(k, s).float() for k, s in zip(taps, apart, strict=True)), weight
    )
    torch.testing.assert_close(coarser.weights({name: apart})[name], want)
    region: Region = {0: torch.tensor([1, 3]), 2: (1, 2), 3: torch.tensor([0, 2])}
    torch.testing.assert_close(coarser.weights({name: apart}, {name: region})[name], part(want, region))


@pytest.mark.parametrize("lengths", [(33,), (17, 9)])
def test_computed_kernels_are_rendered_at_the_samples(lengths: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    source = computed(SearchableCCNN(2, 6, lengths, in_channels=2, num_classes=3))
    assert source is not None
    name = "blocks.1.conv.weight"
    fine, coarse = source(), source(None, {name: (2.0,) * len(lengths)})
    assert torch.equal(coarse["blocks.0.conv.weight"], fine["blocks.0.conv.weight"])
    expected = torch.zeros_like(fine[name])
    inside = tuple(slice(n // 2 - n // 4, n // 2 + n // 4 + 1) for n in lengths)
    every_other = tuple(slice((n // 2) % 2, None, 2) for n in lengths)
    expected[(slice(None), slice(None), *inside)] = 2 ** len(lengths) * fine[name][(..., *every_other)]
    torch.testing.assert_close(coarse[name], expected)
    region: Region = {0: (1, 3), 2: (lengths[0] // 2 - 1, 4)}
    found = source({name: region}, {name: (2.0,) * len(lengths)})
    assert list(found) == [name]
    torch.testing.assert_close(found[name], part(expected, region))


def test_masks_of_computed_kernels_reach_as_far_over_fewer_rings() -> None:
    bands = FrequencyRows(32, [np.arange(16)], [32], [1], 25.0, CPU)
    rings = np.arange(16, 32)
    kernels = KernelRows(32, [rings], [33], CPU, bands, [0])
    with torch.no_grad():
        kernels.offsets.fill_(0.2)
    counts, sizes = [], []
    for kept in (16, 12, 8, 4):
        with torch.no_grad():
            bands.offsets.fill_(sigmoid.offset(float(spectral.coordinates(32)[kept - 1]) + 0.01, 25.0))
        share = spectral.samples(32, kept) / 32
        assert bands.shares().tolist() == [share]
        there = int((kernels.masks()[16:] > 0).sum())
        assert there == kernels.kept()[0] == int(gaussian.crossing(0.2) * 16 * share + 1e-9)
        counts.append(there)
        sizes.append(kernels.sizes().item())
        assert abs(sizes[-1] - there) <= 1
        (gradient,) = torch.autograd.grad(kernels.sizes().sum(), bands.offsets)
        assert gradient.item() > 0 or kept == 16  # fewer samples, fewer taps
    assert counts == sorted(set(counts), reverse=True)
    bands.hold_(np.arange(32) < 8)  # a decision stays, wherever masks are
    assert bands.shares().tolist() == [17 / 32]


def test_kernels_end_where_they_end_at_the_full_resolution() -> None:
    bands = FrequencyRows(32, [np.arange(16)], [32], [1], 25.0, CPU)
    kernels = KernelRows(32, [np.arange(16, 32)], [33], CPU, bands, [0])
    with torch.no_grad():
        kernels.offsets.fill_(gaussian.highest())
        bands.offsets.fill_(sigmoid.offset(0.0, 25.0))
    assert kernels.kept().tolist() == [int(16 * bands.shares().item())]
