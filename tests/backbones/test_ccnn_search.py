"""CCNNs under DNArch: what can be kept in part, computed kernels while training, ordinary networks after."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import compressor
from compressor.backbones import BACKBONES
from compressor.backbones.ccnn_search import LongConv2d, SearchableCCNN, ccnn_4_140, ccnn_4_140_1d
from compressor.costs import build
from compressor.data.arrays import from_tensors
from compressor.errors import UsageError
from compressor.graph import Graph, capture
from compressor.nn.generated import computed, settle_
from compressor.nn.tensors import Region, part
from compressor.search.constraints.constraint import Constraint, hard_sizes
from compressor.search.constraints.projector import Projector
from compressor.search.methods.dnarch.config import DnarchConfig
from compressor.search.methods.dnarch.learner import DnarchLearner
from compressor.train.generated import ComputedWeights
from compressor.trim import plan, trim, trim_verified

LENGTHS = [(16,), (8, 7)]


def small(lengths: tuple[int, ...], **settings: Any) -> SearchableCCNN:
    torch.manual_seed(0)
    return SearchableCCNN(3, 12, lengths, in_channels=2, num_classes=4, **settings)


def traced(model: nn.Module, x: torch.Tensor) -> Graph:
    return capture(model, x, kernels=True, resolution=True)


def session(model: nn.Module, x: torch.Tensor, **settings: Any) -> DnarchLearner:
    graph = traced(model, x)
    term = build("flops", graph)
    projector = Projector(graph, [Constraint(term, 0.5 * term.original)])
    scores = np.zeros(graph.n_units), np.zeros(len(graph.blocks))
    return DnarchLearner(model, projector, DnarchConfig(**settings), scores)


@pytest.mark.parametrize("dense", [False, True])
@pytest.mark.parametrize("lengths", LENGTHS)
def test_every_component_of_every_block_is_found(lengths: tuple[int, ...], dense: bool) -> None:
    model, x = small(lengths, dense=dense), torch.randn(2, 2, *lengths)
    graph = traced(model, x)
    kinds = [group.kind for group in graph.groups]
    assert kinds.count("channels") == 11  # N_in, N_mid and N_out of three blocks; encoder and decoder
    assert kinds.count("kernel") == kinds.count("resolution") == 3 * len(lengths)
    assert [block.gated for block in graph.blocks] == [(f"blocks.{i}.write.scale",) for i in range(3)]
    assert not graph.sites
    assert model(x).shape == ((2, 4, *lengths) if dense else (2, 4))


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("lengths", LENGTHS)
def test_trimmed_is_masked_and_costs_what_was_counted(lengths: tuple[int, ...], seed: int) -> None:
    model, x = small(lengths).eval(), torch.randn(1, 2, *lengths)
    with torch.no_grad():
        for block in model.blocks:
            block.write.scale.mul_(50)  # no branch is lost beside its stream
    graph = traced(model, x)
    source, units = np.random.default_rng(seed), graph.all_units()
    for group in graph.groups:
        units[group.units[source.integers(1, len(group) + 1) :]] = group.kind == "kernel"
    result = trim_verified(model, graph, units, x)
    assert result.check.passed
    assert not result.refused
    assert computed(result.model) is None
    for cost in ("flops", "params"):
        assert float(build(cost, graph)(hard_sizes(graph, units))) == build(cost, capture(result.model, x)).original


def test_widths_of_a_block_are_its_own() -> None:
    model, x = small((8, 7)).eval(), torch.randn(1, 2, 8, 7)
    graph = traced(model, x)
    units = graph.all_units()
    for name, n in (("blocks.1.conv", 5), ("blocks.1.mid", 7), ("blocks.1.out", 3)):
        units[graph.group(name).units[n:]] = False
    result = trim_verified(model, graph, units, x)
    assert result.check.passed
    block: Any = result.model.get_submodule("blocks.1")
    assert (block.conv.in_channels, block.mid.out_channels, block.out.out_channels) == (5, 7, 3)
    assert block.read.index.tolist() == [0, 1, 2, 3, 4]
    assert result.model.get_submodule("blocks.2.mid").weight.shape[:2] == (12, 12)  # type: ignore[index]


@pytest.mark.parametrize("lengths", LENGTHS)
def test_the_fft_is_the_convolution(lengths: tuple[int, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    model, x = small(lengths).double().eval(), torch.randn(2, 2, *lengths, dtype=torch.float64)
    monkeypatch.setattr("compressor.backbones.ccnn_search.FEWEST_TAPS", 1)
    through_fft = model(x)
    monkeypatch.setattr("compressor.backbones.ccnn_search.FEWEST_TAPS", 10**9)
    torch.testing.assert_close(through_fft, model(x))


@pytest.mark.parametrize("lengths", LENGTHS)
def test_the_search_trains_what_computes_the_kernels(lengths: tuple[int, ...]) -> None:
    model, x = small(lengths), torch.randn(4, 2, *lengths)
    masks = session(model, x)
    source = computed(model)
    assert source is not None
    for live in (True, False):
        if not live:
            masks.live = None
        masks.forward(model, x).square().sum().backward()
        assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in source.parameters())
        assert model.blocks[0].conv.weight.grad is None
        assert masks.kernel.offsets.grad is not None
        source.zero_grad()
    assert [p for group in masks.param_groups() for p in group["params"]] == list(source.parameters())
    assert masks.kernel.offsets.eq(0.5).all()  # the paper's start


@pytest.mark.parametrize("lengths", LENGTHS)
def test_a_kernel_is_as_strong_at_any_size(lengths: tuple[int, ...]) -> None:
    model, x = small(lengths), torch.randn(1, 2, *lengths)
    masks, name = session(model, x), "blocks.1.conv.weight"
    kernel = next(p for p in masks.graph.parameters.values() if p.name == name)

    def strength() -> torch.Tensor:
        """That of a kernel of ones, in which every tap counts by its mask."""
        units = torch.cat([masks.kernel.masks(), torch.ones(1, dtype=torch.float64)])
        taps = torch.ones((), dtype=torch.float64)
        for axis in kernel.axes[2:]:
            assert axis is not None
            taps = taps[..., None] * units[torch.from_numpy(axis.factors[:, 0])]
        weights, plain = masks._weights(), computed(model)()  # type: ignore[misc]
        assert weights is not None
        return (taps * (weights[name].sum() / plain[name].sum())).square().sum()

    first = strength().detach()
    with torch.no_grad():
        masks.kernel.offsets.mul_(torch.linspace(0.2, 0.9, len(masks.kernel), dtype=torch.float64))
    last = strength()
    torch.testing.assert_close(last, first, rtol=1e-5, atol=0)
    last.backward()  # so no kernel gets smaller or larger only to weaken or strengthen its branch
    assert masks.kernel.offsets.grad is not None
    assert masks.kernel.offsets.grad.abs().max() < 1e-3 * first


def test_kernels_that_a_budget_does_not_count_are_as_large_as_their_masks() -> None:
    model, x = small((16, 16)), torch.randn(1, 2, 16, 16)
    graph = traced(model, x)
    term = build("complexity", graph)
    scores = np.zeros(graph.n_units), np.zeros(len(graph.blocks))
    projector = Projector(graph, [Constraint(term, 0.8 * term.original)])
    masks = DnarchLearner(model, projector, DnarchConfig(), scores)
    with torch.no_grad():
        masks.width.offsets.sub_(1.0)  # far below the budget: widths are filled up
        masks.kernel.offsets.fill_(0.4)
    decision = masks.decide()
    assert float(term(hard_sizes(graph, decision.units, decision.gates))) > 0.75 * term.original
    rings = [g for g in graph.groups if g.kind == "kernel"]
    assert [int(decision.units[g.units].sum()) for g in rings] == masks.kernel.kept().tolist()
    assert max(masks.kernel.kept()) < max(len(g) for g in rings)


@pytest.mark.parametrize("lengths", LENGTHS)
def test_what_the_search_trained_is_what_is_left(lengths: tuple[int, ...]) -> None:
    model, x = small(lengths).eval(), torch.randn(4, 2, *lengths)
    masks = session(model, x)
    with torch.no_grad():
        masks.width.offsets.sub_(torch.linspace(0.2, 1, len(masks.width), dtype=torch.float64))
        masks.depth.offsets.sub_(0.8)
        masks.kernel.offsets.mul_(0.5)
        masks.resolution.offsets.sub_(0.6)
        for parameter in computed(model).parameters():  # type: ignore[union-attr]
            parameter.add_(0.02 * torch.randn_like(parameter))
        masks.before_step(1, 100)
        expected = masks.forward(model, x)
        units, gates = (mask.gt(0).numpy() for mask in masks.masks())
        masks.fold_(masks.decide())
        found = trim(model, plan(model, masks.graph, units, gates))(x)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("lengths", LENGTHS)
def test_parts_of_kernels_are_those_of_the_whole_ones(lengths: tuple[int, ...]) -> None:
    source = computed(small(lengths).double())
    assert source is not None
    whole = source()
    name, other = list(whole)[1], list(whole)[-1]
    scattered = torch.tensor([0, 2, 3])
    windows = {d: (d - 1, whole[name].shape[d] - 2 * (d - 1)) for d in range(2, 2 + len(lengths))}
    regions: dict[str, Region] = {name: {0: scattered, **windows}, other: {0: (1, 3)}, "another.weight": {0: (0, 1)}}
    found = source(regions)
    assert set(found) == {name, other}
    for key, kernel in found.items():
        torch.testing.assert_close(kernel, part(whole[key], regions[key]))
    assert source({}) == {}


def test_plain_training_goes_through_the_kernel_network_too() -> None:
    model, x = small((16,)), torch.randn(4, 2, 16)
    source = computed(model)
    assert source is not None
    hooks = ComputedWeights(source)
    with torch.no_grad():
        source.net.last.bias.add_(1.0)  # type: ignore[union-attr]
    expected = hooks.forward(model, x)
    model.eval()
    settle_(model)
    with torch.no_grad():
        model.train()
        torch.manual_seed(0)
        settled = model(x)
        torch.manual_seed(0)
        torch.testing.assert_close(hooks.forward(model, x), settled)
    assert expected.requires_grad


def test_copies_and_devices_take_the_kernel_network_along() -> None:
    model = small((16,))
    again = copy.deepcopy(model)
    assert computed(again) is not computed(model)
    model.double()
    assert next(computed(model).parameters()).dtype is torch.float64  # type: ignore[union-attr]
    assert not any("net" in name for name in model.state_dict())


@pytest.mark.parametrize("lengths", [pytest.param((16,), marks=pytest.mark.slow), (8, 8)])
def test_from_search_to_onnx(lengths: tuple[int, ...], tmp_path: Path) -> None:
    import onnxruntime

    torch.manual_seed(0)
    y = torch.arange(96) % 4
    inputs = torch.randn(96, 2, *lengths) + y.reshape(-1, 1, *[1] * len(lengths))
    data = from_tensors((inputs[:80], y[:80]), (inputs[80:], y[80:]))
    model, x = small(lengths), torch.randn(1, 2, *lengths)
    result = compressor.compress(
        model, x, {"flops": "50%"}, data=data, search="dnarch", options={"batch_size": 16}, search_epochs=4,
        finetune_epochs=0,
    )  # fmt: skip
    flops = next(cost for cost in result.report.costs if cost.name == "flops")
    assert flops.reached <= 0.5 * flops.original
    (file,) = result.export(tmp_path)
    runner = onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
    (found,) = runner.run(None, {runner.get_inputs()[0].name: x.numpy()})
    with torch.no_grad():
        torch.testing.assert_close(torch.from_numpy(found), result.model(x), rtol=1e-4, atol=1e-5)
    result.save(tmp_path / "out")
    again = compressor.load(tmp_path / "out", model=small(lengths))
    with torch.no_grad():
        torch.testing.assert_close(again(x), result.model(x))


def test_names_sizes_and_bad_input() -> None:
    assert {"ccnn_4_140", "ccnn_6_380", "ccnn_4_140_1d", "ccnn_6_380_1d"} <= set(BACKBONES.names())
    model = ccnn_4_140(num_classes=7, input_shape=(1, 9, 8))
    assert model(torch.randn(2, 1, 9, 8)).shape == (2, 7)
    assert model.blocks[0].conv.kernel_size == (9, 9)
    assert ccnn_4_140_1d(input_shape=(1, 12), dense=True)(torch.randn(2, 1, 12)).shape == (2, 1, 12)
    assert ccnn_4_140_1d(input_shape=(12,), vocabulary=9)(torch.randint(9, (2, 12))).shape == (2, 10)
    kernels = sum(p.numel() for p in computed(model).parameters())  # type: ignore[union-attr]
    rest = sum(p.numel() for name, p in model.named_parameters() if not name.endswith("conv.weight"))
    assert 0.17e6 < kernels + rest < 0.24e6
    with pytest.raises(UsageError, match=r"takes inputs of shape \(channels, height, width\)"):
        ccnn_4_140(input_shape=(1, 100))
    with pytest.raises(UsageError, match="1 or 2 spatial axes"):
        SearchableCCNN(1, 4, (4, 4, 4))
    with pytest.raises(UsageError, match="Tokens are sequences"):
        SearchableCCNN(1, 4, (4, 4), vocabulary=9)
    tokens = SearchableCCNN(1, 8, (20,), vocabulary=9)
    assert tokens(torch.randint(9, (2, 20))).shape == (2, 10)
    assert isinstance(model.blocks[0].conv, LongConv2d)
