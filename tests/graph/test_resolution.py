"""Branches that compute on fewer samples: which, what it costs, and that trimmed networks do what masked ones did."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from compressor.architecture.architecture import Architecture
from compressor.architecture.edits import Resample
from compressor.costs import build
from compressor.graph import Graph, capture
from compressor.search.constraints.constraint import hard_sizes
from compressor.trim import plan, trim, trim_verified


class Branch(nn.Module):
    """``x + branch(x)`` around any modules."""

    def __init__(self, *modules: nn.Module) -> None:
        super().__init__()
        self.branch = nn.Sequential(*modules)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = x + self.branch(x)
        return y


class Squeeze(nn.Module):
    """Squeeze and excitation."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = nn.Linear(6, 3), nn.Linear(3, 6)

    def forward(self, x: Tensor) -> Tensor:
        return x * torch.sigmoid(self.two(torch.relu(self.one(x.mean((2, 3))))))[:, :, None, None]


class Loose(nn.Module):
    """A branch whose first and last operators are the block's own modules, one after the other."""

    def __init__(self) -> None:
        super().__init__()
        self.norm, self.conv1 = nn.BatchNorm2d(6), nn.Conv2d(6, 9, 3, padding=1)
        self.conv2, self.drop = nn.Conv2d(9, 6, 1), nn.Dropout(0.1)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.drop(self.conv2(torch.relu(self.conv1(self.norm(x)))))
        return x + y


BRANCHES: dict[str, Any] = {
    "convolutions": lambda: Branch(nn.Conv2d(6, 9, 3, padding=1), nn.ReLU(), nn.Conv2d(9, 6, 5, padding=2)),
    "depthwise": lambda: Branch(nn.Conv2d(6, 6, 7, padding=3, groups=6), nn.GELU(), nn.Conv2d(6, 6, 1)),
    "squeeze": lambda: Branch(nn.Conv2d(6, 6, 3, padding=1), Squeeze(), nn.Conv2d(6, 6, 1)),
    "group norm": lambda: Branch(nn.Conv2d(6, 6, 3, padding=1), nn.GroupNorm(2, 6), nn.Conv2d(6, 6, 1)),
    "loose": Loose,
}
WHOLE: dict[str, Any] = {
    "stride": (lambda: Branch(nn.Conv2d(6, 6, 2, stride=2), nn.ConvTranspose2d(6, 6, 2, stride=2)), "depends on"),
    "shrinks": (lambda: Branch(nn.Conv2d(6, 6, 3, padding=0), nn.ZeroPad2d(1), nn.Conv2d(6, 6, 1)), "depends on"),
    "nested": (lambda: Branch(nn.Conv2d(6, 6, 1), Branch(nn.Conv2d(6, 6, 3, padding=1)), nn.Conv2d(6, 6, 1)), "inside"),
}


def network(block: nn.Module) -> tuple[nn.Module, Tensor]:
    layers = [nn.Conv2d(3, 6, 3, padding=1), block, nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 4)]
    return nn.Sequential(*layers), torch.randn(2, 3, 12, 10)


def made(name: str) -> tuple[nn.Module, Tensor]:
    torch.manual_seed(0)
    return network(BRANCHES[name]())


def lowered(graph: Graph, kept: tuple[int, int], widths: float = 1.0) -> Any:
    """Frequencies up to ``kept`` along both axes, and a share of every group of channels."""
    units = graph.all_units()
    resolution = [group for group in graph.groups if group.kind == "resolution"]
    for group, n in zip(resolution, kept, strict=True):
        units[group.units[n:]] = False
    for group in graph.groups:
        if group.kind == "channels":
            units[group.units[max(1, round(widths * len(group))) :]] = False
    return units


@pytest.mark.parametrize("kept", [(3, 2), (6, 2), (1, 5), (0, 0)])
@pytest.mark.parametrize("name", BRANCHES)
def test_trimmed_is_masked_and_costs_what_was_counted(name: str, kept: tuple[int, int]) -> None:
    model, x = made(name)
    graph = capture(model, x, resolution=True)
    units = lowered(graph, kept, 0.7)
    result = trim_verified(model, graph, units, x)
    assert result.check.passed
    assert not result.refused
    assert result.architecture.resolutions
    smaller = capture(result.model, x)
    for cost in ("flops", "params"):
        term = build(cost, graph)
        assert float(term(hard_sizes(graph, units))) == build(cost, smaller).original
        assert term.original == build(cost, capture(model, x)).original
    assert list(result.model.state_dict()) == list(model.state_dict())


@pytest.mark.parametrize("name", ["convolutions", "loose"])
def test_a_branch_sees_the_low_pass_of_its_stream(name: str) -> None:
    """In-band input goes through a pointwise branch as if nothing was resampled."""
    torch.manual_seed(0)
    model, _ = network(Branch(nn.Conv2d(6, 6, 1), nn.Conv2d(6, 6, 1)))
    model = model[1]
    graph = capture(nn.Sequential(nn.Conv2d(6, 6, 1), model, nn.Conv2d(6, 6, 1)), torch.zeros(1, 6, 12, 12),
                    resolution=True)  # fmt: skip
    assert graph.resolutions
    x = torch.cos(2 * torch.pi * torch.arange(12) / 12 * 2).expand(1, 6, 12, 12) + 0.5
    whole = nn.Sequential(nn.Identity(), model, nn.Identity())
    sizes = [[12, 5], [12, 5]]
    entry = Resample("1.branch", ["1.branch"], sizes, block="1")
    small = Architecture.of("", {}, resolutions=[entry]).apply_(nn.Sequential(nn.Identity(), model, nn.Identity()))
    with torch.no_grad():
        torch.testing.assert_close(small(x), x + nn.Sequential(*whole[1].branch)(x), rtol=1e-4, atol=1e-5)


def test_a_lower_resolution_goes_with_its_block() -> None:
    model, x = made("convolutions")
    graph = capture(model, x, resolution=True)
    units = lowered(graph, (2, 2))
    architecture = plan(model, graph, units, np.zeros(1, dtype=np.bool_))
    assert not architecture.resolutions
    assert trim(model, architecture)(x).shape == (2, 4)
    without = np.zeros(1, dtype=np.bool_)
    term = build("flops", graph)
    assert float(term(hard_sizes(graph, units, without))) == build("flops", capture(trim(model, architecture),
                                                                                    x)).original  # fmt: skip


def test_what_is_written_down_makes_the_same_network_and_it_exports(tmp_path: Path) -> None:
    import onnxruntime

    from exporters.formats.onnx import OnnxExporter

    model, x = made("loose")
    graph = capture(model.eval(), x, resolution=True)
    result = trim_verified(model, graph, lowered(graph, (3, 2), 0.6), x)
    fresh, _ = made("loose")
    rebuilt = Architecture.from_json(result.architecture.to_json()).apply_(fresh).eval()
    small = result.model.eval()
    torch.testing.assert_close(rebuilt(x), small(x))
    file = OnnxExporter().export(small, (x,), tmp_path / "small.onnx").path
    session = onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
    (found,) = session.run(None, {session.get_inputs()[0].name: x.numpy()})
    with torch.no_grad():
        torch.testing.assert_close(torch.from_numpy(found), small(x), rtol=1e-4, atol=1e-5)


def test_sequences() -> None:
    torch.manual_seed(0)
    block = Branch(nn.Conv1d(6, 8, 5, padding=2), nn.BatchNorm1d(8), nn.Conv1d(8, 6, 3, padding=1))
    model = nn.Sequential(nn.Conv1d(2, 6, 1), block, nn.AdaptiveAvgPool1d(1), nn.Flatten(), nn.Linear(6, 3))
    x = torch.randn(2, 2, 40)
    graph = capture(model, x, resolution=True)
    (found,) = graph.resolutions
    assert [len(axis) for axis in found.axes] == [40]
    units = graph.all_units()
    units[graph.group("1.resolution[0]").units[6:]] = False
    result = trim_verified(model, graph, units, x)
    assert result.check.passed
    assert result.architecture.resolutions[0].sizes == [[40, 13]]


def test_a_head_that_fixes_the_input_size_goes_on_working() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 6, 1), BRANCHES["convolutions"](), nn.Flatten(), nn.Linear(6 * 64, 4))
    x = torch.randn(2, 3, 8, 8)
    graph = capture(model, x, resolution=True)
    units = graph.all_units()
    for group in graph.groups:
        if group.kind == "resolution":
            units[group.units[2:]] = False
    result = trim_verified(model, graph, units, x)
    assert result.check.passed
    assert result.architecture.resolutions


@pytest.mark.parametrize("name", WHOLE)
def test_branches_that_cannot_say_why(name: str) -> None:
    torch.manual_seed(0)
    make, reason = WHOLE[name]
    graph = capture(*network(make()), resolution=True)
    assert any(reason in text for text in graph.whole_resolutions.values())


def test_resolution_stays_unless_asked_for() -> None:
    graph = capture(*made("loose"))
    assert not graph.resolutions
    assert not graph.whole_resolutions
    assert {group.kind for group in graph.groups} == {"channels"}
