"""MobileNet search spaces: the paper's dimensions, exact trims, exports and a search."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import compressor
from compressor.backbones import BACKBONES
from compressor.backbones.mobilenet_space import STAGES, InvertedResidual, MobileNetSpace, Stage
from compressor.errors import UsageError
from compressor.graph import Graph, capture
from compressor.trim import trim_verified
from exporters import registry as formats

NAMES = {"mobilenet_v2_space": (30, 15), "mobilenet_v3_space": (30, 15), "mobilenet_width": (25, 10)}
IMAGE = torch.zeros(1, 3, 32, 32)


def widths(graph: Graph) -> list[str]:
    """Groups of channels, but for those inside squeeze-and-excite."""
    return [g.name for g in graph.groups if g.component == "width" and ".squeeze." not in g.name]


def tiny(**more: object) -> MobileNetSpace:
    torch.manual_seed(0)
    stages = (Stage(6, 4, 1), Stage(8, 4, 2), Stage(8, 6, 3))
    return MobileNetSpace(stages, (1, 1, 2, 2), num_classes=3, in_channels=2, width=1.0, **more).eval()  # type: ignore[arg-type]


@pytest.mark.parametrize("suffix", ["", "_imagenet"])
@pytest.mark.parametrize("name", NAMES)
def test_dimensions_are_those_of_the_paper(name: str, suffix: str) -> None:
    """Widths, depths and kernels of tables 1 and 2, and of appendix A.1."""
    model = BACKBONES.get(name + suffix)(width=0.25).eval()
    graph = capture(model, torch.zeros(1, *model.input_shape), kernels=True)
    n_widths, n_blocks = NAMES[name]
    assert len(widths(graph)) == n_widths
    assert [block.name for block in graph.blocks] == [
        f"stages.{s}.{b}" for s, stage in enumerate(model.stages) for b in range(1, len(stage))
    ]
    assert len(graph.blocks) == n_blocks
    depthwise = [n for n, m in model.named_modules() if isinstance(m, nn.Conv2d) and m.groups > 1]
    ringed = {name for g in graph.groups if g.component == "kernel" for name, _ in g.members}
    assert ringed == {f"{name}.weight" for name in (*depthwise, "stem")}


def test_full_widths_are_those_of_the_tables() -> None:
    model = BACKBONES.get("mobilenet_v2_space")()
    assert model.stem.weight.shape == (32, 3, 5, 5)
    for stage, blocks in zip(STAGES, model.stages, strict=True):
        assert len(blocks) == stage.depth
        for block in blocks:
            assert isinstance(block, InvertedResidual)
            assert block.depthwise.weight.shape == (stage.intermediate, 1, 5, 5)
            assert block.project.out_channels == stage.output
    assert [len(blocks) for blocks in BACKBONES.get("mobilenet_width")().stages] == [1, 2, 3, 4, 3, 3, 1]


def test_activations_are_modules_in_blocks_alone() -> None:
    model = BACKBONES.get("mobilenet_v3_space")(width=0.1)
    found = [name for name, module in model.named_modules() if isinstance(module, nn.SiLU)]
    assert len(found) == 2 * sum(stage.depth for stage in STAGES)
    assert not any(isinstance(module, nn.ReLU) for module in model.modules())


@pytest.mark.parametrize("squeeze", [False, True])
def test_trims_are_exact(squeeze: bool) -> None:
    model, x = tiny(squeeze=squeeze, activation=nn.SiLU if squeeze else nn.ReLU), torch.randn(2, 2, 16, 16)
    graph = capture(model, x, kernels=True)
    rng = np.random.default_rng(0)
    for _ in range(3):
        units = graph.all_units()
        for group in graph.groups:
            count = max(group.least, int(rng.integers(len(group) + 1)))
            kept = group.kept(count, rng.random(graph.n_units)) if group.ranked else group.inwards[:count]
            units[group.units] = np.isin(group.units, kept)
        gates = rng.random(len(graph.blocks)) < 0.5
        result = trim_verified(model, graph, units, x, gates=gates)
        assert result.check.passed
        assert not result.refused


def test_sizes_that_are_none_are_refused() -> None:
    for wrong in ({"kernel": 4}, {"width": 0.0}, {"dropout": 1.0}, {"strides": (1, 2)}, {"num_classes": 0}):
        with pytest.raises(UsageError):
            MobileNetSpace(**wrong)  # type: ignore[arg-type]


@pytest.mark.slow
@pytest.mark.parametrize("search", ["oneshot", "figs"])
def test_a_search_ends_in_a_network_that_exports(tmp_path: Path, search: str) -> None:
    x, y = torch.randn(48, 2, 16, 16), torch.randint(0, 3, (48,))
    data = DataLoader(TensorDataset(x, y), batch_size=16)
    model = tiny(squeeze=True, activation=nn.SiLU)
    training = compressor.Training(search_epochs=2, finetune_epochs=1, batch_size=16) if search == "figs" else None
    given = {"data": (data, data), "training": training} if training else {}
    result = compressor.compress(model, x[:1], {"flops": "50%"}, search=search, **given)  # type: ignore[arg-type]
    flops = next(cost for cost in result.report.costs if cost.name == "flops")
    assert flops.reached <= 0.5 * flops.original
    formats.get("onnx").export(result.model, x[:1], tmp_path / "model.onnx")
