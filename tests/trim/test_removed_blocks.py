"""Blocks taken out are gone, and what is left computes what the masked model computes."""

from __future__ import annotations

import copy
import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from fvcore.nn import FlopCountAnalysis
from torch import Tensor, nn
from torchvision import models
from torchvision.models.convnext import CNBlockConfig

from compressor.architecture.architecture import Architecture
from compressor.arrays import BoolArray
from compressor.backbones.resnet_cifar import CifarResNet
from compressor.costs import build
from compressor.errors import UsageError
from compressor.graph import capture
from compressor.graph.graph import Graph
from compressor.masks import Masking
from compressor.nn.stubs import First, Zero, stub
from compressor.search.constraints.constraint import hard_sizes
from compressor.trim import Verifier, plan, trim, trim_verified
from exporters.formats.onnx import OnnxExporter

Made = tuple[nn.Module, Tensor]


def _swin() -> nn.Module:
    return models.SwinTransformer(
        patch_size=[4, 4], embed_dim=16, depths=[2, 2], num_heads=[2, 4], window_size=[4, 4], num_classes=5
    )


def _convnext() -> nn.Module:
    stages = [CNBlockConfig(16, 24, 2), CNBlockConfig(24, 32, 2), CNBlockConfig(32, None, 2)]
    return models.ConvNeXt(stages, stochastic_depth_prob=0.1, layer_scale=0.5, num_classes=5)


def _vit() -> nn.Module:
    return models.VisionTransformer(
        image_size=16, patch_size=8, num_layers=3, num_heads=2, hidden_dim=32, mlp_dim=48, num_classes=5
    )


BACKBONES: dict[str, tuple[Callable[[], nn.Module], int]] = {
    "resnet18": (models.resnet18, 32),
    "resnet50": (models.resnet50, 32),
    "mobilenet_v2": (models.mobilenet_v2, 32),
    "mobilenet_v3_small": (models.mobilenet_v3_small, 32),
    "efficientnet_b0": (models.efficientnet_b0, 32),
    "regnet_y_400mf": (models.regnet_y_400mf, 32),
    "convnext": (_convnext, 32),
    "resnet20_cifar": (lambda: CifarResNet(3), 32),
    "swin": (_swin, 32),
    "vit": (_vit, 16),
}


def make(name: str) -> Made:
    torch.manual_seed(0)
    factory, size = BACKBONES[name]
    return factory().eval(), torch.randn(1, 3, size, size)


def choose(graph: Graph, seed: int, *, widths: bool) -> tuple[BoolArray, BoolArray]:
    """A random choice of units, at least one per group, and of blocks."""
    random = np.random.default_rng(seed)
    units = graph.all_units()
    for group in graph.groups if widths else ():
        kept = random.random(len(group)) < random.uniform(0.3, 1.0)
        kept[random.integers(len(group))] = True
        units[group.units] = kept
    return units, random.random(len(graph.blocks)) < 0.5


@pytest.mark.parametrize("name", BACKBONES)
def test_masked_equals_trimmed_and_costs_are_exact(name: str) -> None:
    model, x = make(name)
    graph = capture(model, x)
    verifier = Verifier(model, graph, x)
    for seed in range(2):
        # Swin's stream is left whole here: this is about blocks
        units, gates = choose(graph, seed, widths=name != "swin")
        architecture = plan(model, graph, units, gates)
        small = trim(model, architecture)
        assert verifier.check(units, small, architecture, gates).error <= 1e-9
        sizes = hard_sizes(graph, units, graph.gates(gates))
        assert float(build("params", graph)(sizes)) == sum(p.numel() for p in small.parameters())
        counted = FlopCountAnalysis(small, x).unsupported_ops_warnings(False).uncalled_modules_warnings(False)
        by_operator = counted.by_operator()
        ours = dict.fromkeys(("conv", "linear"), 0.0)
        macs = build("flops", graph)
        for product, value in zip(graph.products, macs.by_layer(sizes).tolist(), strict=True):  # type: ignore[attr-defined]
            if product.kind in ours:
                ours[product.kind] += value
        assert ours["conv"] == by_operator.get("conv", 0)
        if name not in ("swin", "vit"):  # their attention is counted in other ways
            assert float(macs(sizes)) == by_operator.get("conv", 0) + by_operator.get("linear", 0)


@pytest.mark.parametrize("name", BACKBONES)
def test_what_is_removed_is_gone_and_comes_back_the_same_from_json(name: str) -> None:
    model, x = make(name)
    graph = capture(model, x)
    units, gates = choose(graph, 1, widths=True)
    architecture = plan(model, graph, units, gates)
    document = json.loads(json.dumps(architecture.to_json()))
    again = Architecture.from_json(document)
    assert again == architecture
    assert again.blocks == [b.name for b in graph.blocks if not gates[b.index]]
    small = trim(model, architecture)
    names = dict(small.named_modules())
    state = small.state_dict()
    for block in graph.blocks:
        if gates[block.index]:
            continue
        for parameter in block.parameters:
            assert parameter not in state
            assert again.kept(parameter, 0) == [] if graph.parameters[parameter].shape else True
            assert again.slice(parameter, torch.ones(graph.parameters[parameter].shape)).numel() == 0
        for module in block.modules:
            assert module not in names or isinstance(names[module], (nn.Identity, First, Zero))
            assert not any(other.startswith(f"{module}.") for other in names)
    fresh = again.apply_(copy.deepcopy(model))
    assert {k: t.shape for k, t in fresh.state_dict().items()} == {k: t.shape for k, t in state.items()}
    fresh.load_state_dict(state)
    if name != "swin":
        torch.testing.assert_close(fresh(x), small(x))


def _operators(model: nn.Module, x: Tensor, path: Path) -> Counter[str]:
    info = OnnxExporter().export(model, x, path)
    assert info.checks
    return Counter(node.op_type for node in onnx.load(str(path)).graph.node)


@pytest.mark.slow
@pytest.mark.parametrize(("name", "kind"), [("resnet18", "Conv"), ("vit", "MatMul"), ("swin", "MatMul")])
def test_what_is_removed_is_gone_from_the_exported_graph(name: str, kind: str, tmp_path: Path) -> None:
    model, x = make(name)
    graph = capture(model, x)
    before = _operators(model, x, tmp_path / "whole.onnx")
    gates = np.arange(len(graph.blocks)) % 2 == 0
    small = trim(model, plan(model, graph, graph.all_units(), gates))
    after = _operators(small, x, tmp_path / "small.onnx")
    removed = int((~gates).sum())
    assert removed
    assert after[kind] <= before[kind] - removed
    assert after["Add"] <= before["Add"] - removed, "the additions of removed branches are folded away"


def test_a_module_without_branches_is_one_identity() -> None:
    model, x = make("vit")
    graph = capture(model, x)
    architecture = plan(model, graph, graph.all_units(), np.zeros(len(graph.blocks), dtype=np.bool_))
    assert architecture.removed == {f"encoder.layers.encoder_layer_{i}": "identity" for i in range(3)}


@pytest.mark.parametrize("name", ["vit", "swin", "resnet18"])
def test_a_model_with_removed_blocks_trains(name: str) -> None:
    model, x = make(name)
    graph = capture(model, x)
    gates = np.arange(len(graph.blocks)) % 2 == 0
    small = trim(model, plan(model, graph, graph.all_units(), gates)).train()
    small(torch.cat([x, x])).sum().backward()
    assert all(p.grad is not None for p in small.parameters())


def test_gates_multiply_the_branch_softly_and_pass_gradients() -> None:
    model, x = make("resnet20_cifar")
    graph = capture(model, x)
    masking = Masking(model, graph)
    units = torch.ones(graph.n_units)
    gates = torch.ones(len(graph.blocks), requires_grad=True)
    with masking.applied(units, gates=gates):
        out = model(x)
    torch.testing.assert_close(out, model(x))
    out.sum().backward()
    assert gates.grad is not None
    assert bool((gates.grad != 0).all())
    with masking.applied(units):  # without gates as ever
        torch.testing.assert_close(model(x), out.detach())


class Raw(nn.Module):
    """Branches that end in nothing linear, with a parameter of the module's own, or in a tuple."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 1)
        self.f = nn.Sequential(nn.Conv2d(8, 8, 1), nn.Tanh())
        self.g = nn.Conv2d(8, 8, 1)
        self.scale = nn.Parameter(torch.ones(8, 1, 1))
        self.pair = Pair()
        self.squash = nn.Tanh()  # called twice: it has to stay
        self.h = nn.Conv2d(8, 8, 1)
        self.head = nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.squash(self.stem(x))
        x = x + self.f(x)
        x = x + self.scale * self.g(x)
        y, _ = self.pair(x, flag=True)
        x = y + x
        x = x + self.squash(self.h(x))
        return self.head(x.mean((2, 3)))


class Pair(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(8, 8, 1)

    def forward(self, x: Tensor, flag: bool) -> tuple[Tensor, None]:
        return self.conv(x).exp(), None


def test_awkward_branches_go_too() -> None:
    torch.manual_seed(0)
    model, x = Raw().eval(), torch.randn(2, 3, 4, 4)
    graph = capture(model, x)
    assert [block.removal for block in graph.blocks] == [
        {"f": "zero"},
        {"g": "zero", "scale": "scalar"},
        {"pair": "zero+1"},
        {"h": "zero"},
    ]
    assert [bool(block.gated) for block in graph.blocks] == [False, True, False, False]
    verifier = Verifier(model, graph, x)
    for choice in range(16):
        gates = np.array([bool(choice >> i & 1) for i in range(4)])
        units = graph.all_units()
        architecture = plan(model, graph, units, gates)
        small = trim(model, architecture)
        assert verifier.check(units, small, architecture, gates).error <= 1e-9
        assert sum(p.numel() for p in small.parameters()) == float(
            build("params", graph)(hard_sizes(graph, units, gates))
        )
        small.train()(x).sum().backward()


def test_a_block_whose_removal_is_not_exact_is_found_and_kept() -> None:
    class Looks(nn.Module):
        """Its forward asks for something that a stub does not have."""

        def __init__(self) -> None:
            super().__init__()
            self.stem = nn.Conv2d(3, 8, 1)
            self.f, self.g = nn.Conv2d(8, 8, 1), nn.Conv2d(8, 8, 1)
            self.head = nn.Linear(8, 4)

        def forward(self, x: Tensor) -> Tensor:
            x = self.stem(x)
            x = x + self.f(x) * (2.0 if self.f.weight.shape[0] > 1 else 1.0)
            return self.head((x + self.g(x)).mean((2, 3)))

    model, x = Looks().eval(), torch.randn(1, 3, 4, 4)
    graph = capture(model, x)
    assert [block.name for block in graph.blocks] == ["f", "g"]
    result = trim_verified(model, graph, graph.all_units(), x, gates=np.zeros(2, dtype=np.bool_))
    assert result.check.passed
    assert result.refused == ["f"]
    assert result.architecture.blocks == ["g"]


def test_stubs_of_unknown_kind_are_refused() -> None:
    assert isinstance(stub("identity"), nn.Identity)
    assert stub("first+2")(1, 2, key=3) == (1, None, None)
    with pytest.raises(UsageError, match="'nothing'"):
        stub("nothing")
