"""Verification finds what is wrong, names what is at fault and keeps the rest; trimmed models are ordinary modules."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torchvision import models

from compressor.architecture.architecture import Architecture
from compressor.architecture.edits import Slice
from compressor.arrays import BoolArray
from compressor.errors import UnsupportedModelError, VerificationError
from compressor.graph import Graph, capture
from compressor.trim import TOLERANCE, Check, TrimResult, Verifier, plan, trim, trim_verified


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 12, 3, padding=1)
        self.norm = nn.BatchNorm2d(12)
        self.second = nn.Conv2d(12, 20, 3, padding=1, groups=4)
        self.third = nn.Conv2d(20, 16, 1)
        self.scale = nn.Parameter(torch.ones(16, 1, 1))
        self.head = nn.Linear(16, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm(self.first(x)).sigmoid()
        x = self.third(self.second(x).tanh()) * self.scale
        out: Tensor = self.head(x.mean((2, 3)))
        return out


def made(model: nn.Module, x: Tensor) -> tuple[nn.Module, Graph, Tensor]:
    return model.eval(), capture(model, x), x


def net() -> tuple[nn.Module, Graph, Tensor]:
    torch.manual_seed(0)
    return made(Net(), torch.randn(1, 3, 6, 6))


def some(graph: Graph, seed: int = 0, share: float = 0.5) -> BoolArray:
    """About this share of every group."""
    random = np.random.default_rng(seed)
    units = graph.all_units()
    for group in graph.groups:
        kept = random.random(len(group)) < share
        kept[random.integers(len(group))] = True
        units[group.units] = kept
    return units


def test_an_exact_trim_passes() -> None:
    model, graph, x = net()
    for seed in range(4):
        result = trim_verified(model, graph, some(graph, seed), x)
        assert result.check.error <= TOLERANCE
        assert result.refused == []


@pytest.mark.parametrize("name", ["first.weight", "norm.running_mean", "third.bias", "scale", "head.weight"])
def test_one_wrong_slice_is_found(name: str) -> None:
    model, graph, x = net()
    units = some(graph)
    verifier = Verifier(model, graph, x)
    architecture = plan(model, graph, units)
    assert verifier.check(units, trim(model, architecture), architecture).passed
    axis = 1 if name == "head.weight" else 0
    kept = architecture.indices[name][axis]
    lost = next(i for i in range(architecture.shapes[name][axis]) if i not in kept)
    architecture = _other_slice(architecture, name, axis, sorted([*kept[1:], lost]))
    check = verifier.check(units, trim(model, architecture), architecture)
    assert not check.passed, "another channel than the mask's was kept"
    assert check.error > 1e-6


def _other_slice(architecture: Architecture, name: str, axis: int, kept: list[int]) -> Architecture:
    edits = [
        Slice(name, {**edit.kept, axis: kept}) if isinstance(edit, Slice) and edit.parameter == name else edit
        for edit in architecture.edits
    ]
    return replace(architecture, edits=tuple(edits))


def test_constant_parameters_hide_no_mistake() -> None:
    """Fresh scales are all ones and fresh means all zeros, so any slice of them would do."""
    model, graph, x = net()
    units = some(graph)
    architecture = plan(model, graph, units)
    for name in ("norm.weight", "norm.bias", "norm.running_mean", "norm.running_var", "scale"):
        kept = architecture.indices[name][0]
        lost = next(i for i in range(architecture.shapes[name][0]) if i not in kept)
        broken = _other_slice(architecture, name, 0, sorted([*kept[1:], lost]))
        assert not Verifier(model, graph, x).check(units, trim(model, broken), broken).passed, name


class Spelled(nn.Module):
    """Two of four layers use their width in a way that no trace can follow: through text."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c, self.d = nn.Linear(6, 16), nn.Linear(16, 16), nn.Linear(16, 16), nn.Linear(16, 16)
        self.head = nn.Linear(16, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.a(x).relu()
        x = self.b(x).relu()
        x = x * float(str(x.shape[1]))
        x = self.c(x).relu()
        x = self.d(x).relu()
        out: Tensor = self.head(x + float(str(x.shape[1])))
        return out


def test_what_is_at_fault_is_restored_and_nothing_else() -> None:
    torch.manual_seed(0)
    model, graph, x = made(Spelled(), torch.randn(1, 6))
    units = some(graph)
    result = trim_verified(model, graph, units, x)
    assert sorted(result.refused) == ["b", "d"]
    assert result.check.error <= TOLERANCE
    small: Any = result.model
    for name in "abcd":
        layer = getattr(small, name)
        expected = 16 if name in "bd" else int(units[graph.group(name).units].sum())
        assert layer.out_features == expected


class Moody(nn.Module):
    """Fails only in the trimmed model."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(6, 16), nn.Linear(16, 16)
        self.head = nn.Linear(16, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.a(x)
        if str(x.shape[1]) != "16":
            raise ValueError("sixteen is my number")
        out: Tensor = self.head(self.b(x).relu())
        return out


def test_a_trimmed_model_that_raises_is_a_failed_check() -> None:
    torch.manual_seed(0)
    model, graph, x = made(Moody(), torch.randn(1, 6))
    result = trim_verified(model, graph, some(graph), x)
    assert result.refused == ["a"]
    assert "sixteen is my number" in result.reason
    assert result.check.passed


def test_what_fails_whole_is_an_error() -> None:
    result = TrimResult(nn.Linear(1, 1), plan(*net()[:2], net()[1].all_units()), Check(0.5), [])
    with pytest.raises(VerificationError, match=r"differs from the masked one by 5\.0e-01"):
        result.require_exact()


SMALL: dict[str, tuple[Callable[[], nn.Module], int]] = {
    "resnet18": (models.resnet18, 32),
    "resnext50_32x4d": (models.resnext50_32x4d, 32),
    "densenet121": (models.densenet121, 32),
    "mobilenet_v2": (models.mobilenet_v2, 32),
    "mnasnet0_5": (models.mnasnet0_5, 32),
    "squeezenet1_1": (models.squeezenet1_1, 32),
    "googlenet": (lambda: models.googlenet(init_weights=False), 64),
    "shufflenet_v2_x0_5": (models.shufflenet_v2_x0_5, 32),
}


@pytest.mark.parametrize("name", SMALL)
def test_backbones_are_trimmed_exactly_and_rebuilt_without_a_trace(name: str) -> None:
    torch.manual_seed(0)
    factory, size = SMALL[name]
    model, graph, x = made(factory(), torch.randn(1, 3, size, size))
    before = {key: tensor.clone() for key, tensor in model.state_dict().items()}
    result = trim_verified(model, graph, some(graph, share=0.6), x)
    assert result.refused == []
    assert result.check.error <= TOLERANCE
    assert type(result.model) is type(model)
    small, whole = result.model.state_dict(), model.state_dict()
    assert list(small) == list(whole), "the keys stay"
    assert all(torch.equal(before[key], tensor) for key, tensor in whole.items()), "the original is not changed"
    rebuilt = result.architecture.apply_(copy.deepcopy(model))
    assert all(torch.equal(small[key], tensor) for key, tensor in rebuilt.state_dict().items())
    for key, tensor in before.items():
        expected = tensor
        for axis in range(tensor.dim()):
            expected = expected.index_select(axis, torch.tensor(result.architecture.kept(key, axis)))
        assert torch.equal(expected, small[key])
    for path, module in result.model.named_modules():
        if isinstance(module, nn.Conv2d):
            assert (module.out_channels, module.in_channels) == (
                len(module.weight),
                module.weight.shape[1] * module.groups,
            ), path


def test_a_model_that_cannot_be_copied_is_refused_in_one_line() -> None:
    model, graph, _ = net()
    model.opened = open(__file__, encoding="utf-8")  # type: ignore[assignment]  # noqa: SIM115
    with pytest.raises(UnsupportedModelError, match="cannot be copied"):
        trim(model, plan(model, graph, some(graph)))
    model.opened.close()  # type: ignore[operator, union-attr]
