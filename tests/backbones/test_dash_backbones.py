"""Wide ResNets and the TCN: sizes of the papers, outputs at points and positions, exact trims and exports."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from compressor.backbones import BACKBONES
from compressor.backbones.tcn import TCN, tcn
from compressor.backbones.wide_resnet import WideResNet, wrn_16_1
from compressor.backbones.wide_resnet_1d import WideResNet1d, width_for, wrn1d
from compressor.costs import build
from compressor.errors import UsageError
from compressor.graph import capture
from compressor.models import list_models, load_model
from compressor.search.constraints.constraint import hard_sizes
from compressor.trim import trim_verified
from exporters import registry as formats

NAMES = {"wrn_16_1": (12, 10), "wrn_16_4": (12, 10), "wrn1d": (40,), "tcn": (40,)}


def parameters(model: nn.Module) -> int:
    return sum(p.numel() for p in model.parameters())


def small(kind: str, dense: bool) -> tuple[nn.Module, torch.Tensor]:
    torch.manual_seed(0)
    common: dict[str, Any] = {"num_classes": 3, "in_channels": 2, "dense": dense}
    if kind == "wide_resnet":
        return WideResNet(1, 1, **common).eval(), torch.randn(2, 2, 8, 6)
    x = torch.randn(2, 2, 24)
    return (TCN(3, 8, **common) if kind == "tcn" else WideResNet1d((8, 8, 12), **common)).eval(), x


KINDS = ("wide_resnet", "wide_resnet_1d", "tcn")


@pytest.mark.parametrize(("name", "count"), [("wrn_16_1", 175_066), ("wrn_16_4", 2_748_890)])
def test_parameter_counts_match_the_paper(name: str, count: int) -> None:
    """Table 1 and 4 of Zagoruyko and Komodakis: 0.2 M and 2.75 M."""
    model = BACKBONES.get(name)()
    assert parameters(model) == count
    assert sum(isinstance(m, nn.Conv2d) and m.kernel_size == (3, 3) for m in model.modules()) == 1 + 12


def test_the_sequence_networks_have_the_sizes_of_their_papers() -> None:
    assert [width_for(n) for n in (1, 9, 10, 19, 20, 100)] == [4, 4, 16, 16, 64, 64]
    assert wrn1d(num_classes=36).blocks[2].conv3.weight.shape == (64, 64, 3)
    assert wrn1d(num_classes=2, width=7).head.linear.in_features == 7
    kernels = [m.kernel_size[0] for n, m in wrn1d().named_modules() if ".conv" in n]
    assert kernels == [8, 5, 3] * 3
    assert parameters(tcn()) == pytest.approx(70_000, rel=0.05)  # table 1 of Bai et al., sequential MNIST
    assert [block.conv2.dilation[0] for block in tcn().blocks] == [1, 2, 4, 8, 16, 32, 64, 128]


@pytest.mark.parametrize("dense", [False, True])
@pytest.mark.parametrize("name", NAMES)
def test_outputs_at_points_and_positions(name: str, dense: bool) -> None:
    lengths = NAMES[name]
    model = BACKBONES.get(name)(num_classes=7, in_channels=2, dense=dense).eval()
    assert model(torch.zeros(2, 2, *lengths)).shape == ((2, 7, *lengths) if dense else (2, 7))
    assert model(torch.zeros(1, 2, *(1 for _ in lengths))).shape[:2] == (1, 7)
    assert len(model.input_shape) == 1 + len(lengths)
    assert model.input_shape[0] == 2


def test_names_of_layers_are_the_usual_ones() -> None:
    model = wrn_16_1()
    for name in ("conv1", "layer1.0.conv1", "layer1.1.conv2", "layer2.0.shortcut", "layer3.0.dropout"):
        model.get_submodule(name)
    assert isinstance(model.layer1[0].shortcut, nn.Identity)
    assert [stage[0].conv2.stride for stage in (model.layer1, model.layer2, model.layer3)] == [(1, 1), (2, 2), (2, 2)]
    assert all(m.stride == (1, 1) for m in wrn_16_1(dense=True).modules() if isinstance(m, nn.Conv2d))


@pytest.mark.parametrize("kind", ["wrn1d", "tcn"])
def test_a_dense_prediction_moves_with_a_signal(kind: str) -> None:
    """Far from the ends, in a network that sees as far on the left as on the right."""
    model = (TCN(2, 8, dense=True) if kind == "tcn" else wrn1d(dense=True)).eval()
    x = torch.randn(1, 1, 200)
    with torch.no_grad():
        one, two = model(x), model(x.roll(5, dims=2))
    torch.testing.assert_close(two[..., 85:125], one[..., 80:120], rtol=1e-4, atol=1e-5)


def test_the_tcn_sees_as_far_as_it_says_on_both_sides() -> None:
    model = TCN(3, 8, 3, dense=True).eval()
    x = torch.randn(1, 1, 101, requires_grad=True)
    model(x)[0, :, 50].sum().backward()
    assert x.grad is not None
    seen = x.grad[0, 0].nonzero().flatten()
    reach = 2 * (2**3 - 1)
    assert (int(seen.min()), int(seen.max())) == (50 - reach, 50 + reach)


@pytest.mark.parametrize("dense", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_trimmed_is_masked_and_costs_what_was_counted(kind: str, dense: bool) -> None:
    model, x = small(kind, dense)
    graph = capture(model, x)
    assert [fixed.reason for fixed in graph.fixed] == ["output of the network"]
    source = np.random.default_rng(1)
    units = graph.all_units()
    for group in graph.groups:
        units[group.units[source.integers(1, len(group) + 1) :]] = False
    result = trim_verified(model, graph, units, x)
    assert result.check.passed
    assert not result.refused
    assert parameters(result.model) < parameters(model)
    for cost in ("flops", "params"):
        assert float(build(cost, graph)(hard_sizes(graph, units))) == build(cost, capture(result.model, x)).original


@pytest.mark.parametrize("dense", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_the_export_computes_the_same(kind: str, dense: bool, tmp_path: Path) -> None:
    import onnxruntime

    model, x = small(kind, dense)
    formats.get("onnx").export(model, x, tmp_path / "model.onnx")
    session = onnxruntime.InferenceSession(str(tmp_path / "model.onnx"))
    (found,) = session.run(None, {session.get_inputs()[0].name: x.numpy()})
    with torch.no_grad():
        torch.testing.assert_close(torch.from_numpy(found), model(x), rtol=1e-3, atol=1e-4)


def test_blocks_can_be_removed() -> None:
    model, x = WideResNet(2, 1, num_classes=3).eval(), torch.randn(1, 3, 8, 8)
    graph = capture(model, x)
    gates = np.ones(len(graph.blocks), dtype=bool)
    removable = [i for i, block in enumerate(graph.blocks) if "layer2.1" in str(block)]
    assert removable
    gates[removable] = False
    result = trim_verified(model, graph, graph.all_units(), x, gates=gates)
    assert result.check.passed
    assert parameters(result.model) < parameters(model)


def test_they_are_listed_and_made_for_the_data() -> None:
    assert set(NAMES) <= set(list_models())
    loaded = load_model("wrn1d", weights="none", num_classes=4, example_shape=(2, 50), dense=True)
    assert loaded.model(torch.zeros(1, 2, 50)).shape == (1, 4, 50)


@pytest.mark.parametrize(
    ("make", "settings", "said"),
    [
        (wrn_16_1, {"num_classes": 0}, "num_classes must be at least 1, not 0"),
        (wrn1d, {"width": 0}, "width must be at least 1, not 0"),
        (wrn1d, {"num_classes": -1}, "num_classes"),
        (tcn, {"kernel": 4}, "kernel must be odd"),
        (tcn, {"dropout": 1.0}, "dropout must be at least 0 and below 1"),
    ],
)
def test_bad_settings_are_refused(make: Any, settings: dict[str, Any], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        make(**settings)
