"""Forwards that replace parameters and buffers, list them, or write into them."""

from __future__ import annotations

import copy
from collections.abc import Callable
from itertools import pairwise

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.utils import parametrizations

import compressor
from compressor.arrays import UnitMask
from compressor.errors import UnsupportedModelError
from compressor.graph import Graph, capture
from compressor.masks import Masking
from compressor.trim import trim_verified

X = torch.randn(3, 6, generator=torch.Generator().manual_seed(1))


def layers(*widths: int) -> nn.Sequential:
    made = [m for a, b in pairwise(widths) for m in (nn.Linear(a, b), nn.Tanh())]
    return nn.Sequential(*made[:-1])


class Scaled(nn.Module):
    """A module called with weights made of its own; ``name`` is of the one that is another."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self.net, self.gain, self.name = layers(6, 24, 3), nn.Parameter(torch.rand(1, 1) + 0.5), name

    def forward(self, x: Tensor) -> Tensor:
        weights = dict(self.net.named_parameters())
        weights[self.name] = weights[self.name] * self.gain
        out: Tensor = functional_call(self.net, weights, (x,))
        return out


class Called(nn.Module):
    """A module called with what ``made`` makes of its weights."""

    def __init__(self, made: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.net, self.made = layers(6, 24, 3), made

    def forward(self, x: Tensor) -> Tensor:
        weights = {name: self.made(parameter) for name, parameter in self.net.named_parameters()}
        out: Tensor = functional_call(self.net, weights, (x,))
        return out


class Generated(nn.Module):
    """A module called with a weight that another network computes."""

    def __init__(self) -> None:
        super().__init__()
        self.net, self.code, self.weight = layers(6, 24, 3), layers(6, 16, 4), nn.Linear(4, 6 * 24)

    def forward(self, x: Tensor) -> Tensor:
        weight = self.weight(self.code(x).mean(0)).view(-1, 6)
        out: Tensor = functional_call(self.net, {"0.weight": weight}, (x,))
        return out


class Stateful(nn.Module):
    """A state in a buffer that is assigned and read within one forward."""

    def __init__(self) -> None:
        super().__init__()
        self.put, self.keep, self.out = nn.Linear(6, 24), nn.Linear(24, 24), nn.Linear(24, 3)
        self.register_buffer("state", torch.zeros(1, 24))

    def forward(self, x: Tensor) -> Tensor:
        self.state = self.state * 0
        for _ in range(3):
            self.state = torch.tanh(self.put(x) + self.keep(self.state))
        out: Tensor = self.out(self.state)
        self.state = self.state.detach()[:1]
        return out


class Momentum(nn.Module):
    """A second network follows the first in every forward; ``assigned`` is how."""

    def __init__(self, assigned: bool) -> None:
        super().__init__()
        self.online, self.target, self.assigned = layers(6, 24, 8), layers(6, 24, 8).requires_grad_(False), assigned

    @torch.no_grad()
    def follow(self) -> None:
        for mine, other in zip(self.target.parameters(), self.online.parameters(), strict=True):
            if self.assigned:
                mine.data = mine.data * 0.9 + other.data * 0.1
            else:
                mine.mul_(0.9).add_(other, alpha=0.1)

    def forward(self, x: Tensor) -> Tensor:
        self.follow()
        out: Tensor = self.online(x) @ self.target(x).t()
        return out


class Decayed(nn.Module):
    """A buffer that is read as a weight and changed in place, in evaluation mode, too."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(6, 24), nn.Linear(16, 3)
        self.register_buffer("basis", torch.randn(24, 16))

    def forward(self, x: Tensor) -> Tensor:
        y = self.first(x).relu() @ self.basis.clone()
        self.basis.mul_(0.9)
        out: Tensor = self.last(y)
        return out


FORMS: dict[str, Callable[[], nn.Module]] = {
    "written with a gain": lambda: Scaled("0.weight"),
    "read with a gain": lambda: Scaled("2.weight"),
    "copied": lambda: Called(torch.clone),
    "generated": Generated,
    "stateful": Stateful,
    "momentum, assigned": lambda: Momentum(True),
    "momentum, in place": lambda: Momentum(False),
    "decayed": Decayed,
}


def some(graph: Graph) -> UnitMask:
    """Every second unit of every group."""
    units = graph.all_units()
    for group in graph.groups:
        units[group.units[1::2]] = False
    return units


def masked_by_hand(model: nn.Module, graph: Graph, units: UnitMask) -> nn.Module:
    """A plain copy whose weights are zero where they read what goes."""
    found = copy.deepcopy(model)
    mask = np.append(np.asarray(units[: graph.n_units], dtype=np.bool_), True)
    state = found.state_dict()
    for each in graph.masks:
        for d, axis in each.axes:
            kept = torch.from_numpy(axis.keep(mask)).to(torch.float32)
            tensor = state[each.parameter]
            tensor.mul_(kept.reshape(-1, *[1] * (tensor.dim() - 1 - d)))
    return found


@pytest.mark.parametrize("form", FORMS)
def test_what_is_replaced_is_followed(form: str) -> None:
    torch.manual_seed(0)
    model = FORMS[form]().eval()
    before = copy.deepcopy(model.state_dict())
    graph = capture(model, X)
    units = some(graph)
    result = trim_verified(model, graph, units, X)
    assert graph.groups
    assert not result.refused, result.check.reason
    assert result.check.error <= 1e-9
    found = copy.deepcopy(result.model)(X)
    if not graph.sites:
        torch.testing.assert_close(found, masked_by_hand(model, graph, units)(X))
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("mode", [True, False])
def test_the_model_passed_in_is_not_changed(form: str, mode: bool) -> None:
    torch.manual_seed(0)
    model = FORMS[form]().train(mode)
    before = copy.deepcopy(model.state_dict())
    result = compressor.compress(model, X, {"params": "60%"})
    assert result.report.budgets[0].met
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


@pytest.mark.parametrize("kind", [parametrizations.spectral_norm, parametrizations.weight_norm])
def test_computed_weights_are_not_computed_in_training_mode(kind: Callable[[nn.Module], nn.Module]) -> None:
    """Looking at a weight under spectral normalisation moves its vectors where the module trains."""
    model = nn.Sequential(nn.Linear(6, 24), nn.ReLU(), kind(nn.Linear(24, 24)), nn.ReLU(), nn.Linear(24, 3)).train()
    before = copy.deepcopy(model.state_dict())
    compressor.compress(model, X, {"params": "50%"})
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


def test_masks_stand_aside_for_no_other_weight() -> None:
    """In a loop of one's own, masks are in the module's own weights: another in their place would miss them."""
    model = Called(torch.clone)
    before = list(model.parameters())
    session = compressor.prepare(model, X, {"params": "50%"}, total_steps=4)
    with pytest.raises(UnsupportedModelError, match="another weight than its own"):
        model(X)
    session.close()
    assert type(model.net[2]._parameters) is dict
    assert all(a is b for a, b in zip(model.parameters(), before, strict=True))


def test_a_call_with_its_own_weights_sees_masks() -> None:
    model = Called(lambda tensor: tensor).eval()
    graph = capture(model, X)
    units = some(graph)
    with Masking(model, graph).applied(torch.from_numpy(units[: graph.n_units]).to(torch.float32)):
        found = model(X)
    torch.testing.assert_close(found, masked_by_hand(model, graph, units)(X))
    assert type(model.net[0]._parameters) is dict
