"""What a trimmed network is said to cost is what is counted on it, whatever its forward does to weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from fvcore.nn import FlopCountAnalysis
from torch import Tensor, nn
from torch.nn import functional

import compressor
from compressor.graph import capture
from compressor.graph.graph import Graph
from compressor.trim import trim_verified
from compressor.trim.recount import disagreement

X = torch.randn(1, 3, 12, 12, generator=torch.Generator().manual_seed(0))


def _data(conv: nn.Conv2d, weight: Tensor) -> None:
    conv.weight.data = weight


def _data_of_data(conv: nn.Conv2d, weight: Tensor) -> None:
    conv.weight.data = weight.data


def _set_by_name(conv: nn.Conv2d, weight: Tensor) -> None:
    setattr(conv.weight, "data", weight)  # noqa: B010


@torch.no_grad()
def _copied(conv: nn.Conv2d, weight: Tensor) -> None:
    conv.weight.copy_(weight)


def _copied_into_data(conv: nn.Conv2d, weight: Tensor) -> None:
    conv.weight.data.copy_(weight)


@torch.no_grad()
def _by_index(conv: nn.Conv2d, weight: Tensor) -> None:
    conv.weight[:] = weight


@torch.no_grad()
def _new_parameter(conv: nn.Conv2d, weight: Tensor) -> None:
    conv.weight = nn.Parameter(weight.detach())


@torch.no_grad()
def _set(conv: nn.Conv2d, weight: Tensor) -> None:
    conv.weight.set_(weight.detach())


class Rep(nn.Module):
    """A convolution whose weight is put in place from those of two others."""

    def __init__(self, given: int, out: int, put: Any) -> None:
        super().__init__()
        self.put, self.conv = put, nn.Conv2d(given, out, 3, padding=1)
        self.a, self.b = nn.Conv2d(given, out, 3, bias=False), nn.Conv2d(given, out, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        self.put(self.conv, self.a.weight + functional.pad(self.b.weight, (1, 1, 1, 1)))
        return self.conv(x)  # type: ignore[no-any-return]


def network(put: Any) -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(Rep(3, 16, put), nn.ReLU(), Rep(16, 32, put), nn.ReLU(), nn.Conv2d(32, 8, 1)).eval()


def counted(model: nn.Module) -> float:
    analysis = FlopCountAnalysis(model, X).unsupported_ops_warnings(False).uncalled_modules_warnings(False)
    return float(analysis.total())


FOLLOWED = [_data, _data_of_data, _set_by_name, _copied, _copied_into_data, _by_index]


@pytest.mark.parametrize("put", FOLLOWED, ids=lambda put: put.__name__)
def test_weights_put_in_place_by_a_forward_are_followed(put: Any, tmp_path: Path) -> None:
    result = compressor.compress(network(put), X, {"flops": "50%"}, search="oneshot")
    budget = result.report.budgets[0]
    assert budget.reached <= 0.5 * budget.original
    assert counted(result.model) == budget.reached
    result.save(tmp_path)
    assert torch.equal(compressor.load(tmp_path, model=network(put))(X), result.model(X))


@pytest.mark.parametrize("put", [_new_parameter, _set], ids=lambda put: put.__name__)
def test_weights_that_are_replaced_stay_whole(put: Any) -> None:
    with pytest.raises(compressor.CompressorError):
        compressor.compress(network(put), X, {"flops": "50%"}, search="oneshot")


class Wasteful(nn.Module):
    """At fewer channels than it was made with it does its first layer three times over, for the same result."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c = nn.Conv2d(3, 16, 3), nn.Conv2d(16, 12, 3), nn.Conv2d(12, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        y = self.a(x)
        for _ in range(2 if len(self.a.weight) < 16 else 0):
            y = (y + self.a(x)) / 2
        return self.c(torch.relu(self.b(torch.relu(y))))  # type: ignore[no-any-return]


def _units(graph: Graph) -> Any:
    units = graph.all_units()
    for group in graph.groups:
        units[group.units] = np.arange(len(group)) % 2 == 0
    return units


def test_work_that_appears_with_the_trim_is_noticed_and_left_whole() -> None:
    model = Wasteful().eval()
    graph = capture(model, X)
    assert [group.name for group in graph.groups] == ["a", "b"]
    result = trim_verified(model, graph, _units(graph), X)
    assert result.check.passed
    assert result.refused == ["a"]
    assert "multiply-adds" in result.reason
    assert result.model.b.out_channels == 6  # type: ignore[union-attr]


def test_only_inputs_that_were_traced_are_compared() -> None:
    model = network(_copied)
    graph = capture(model, X)
    units, gates = graph.all_units(), graph.gates(None)
    assert disagreement(model, model, graph, units, gates, ((X,), {})) == ""
    units[graph.groups[0].units[:8]] = False
    assert "multiply-adds" in disagreement(model, model, graph, units, gates, ((X,), {}))
    assert disagreement(model, model, graph, units, gates, ((X[..., :10],), {})) == ""
