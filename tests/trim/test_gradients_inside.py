"""Forwards that take gradients themselves: forces of an energy, an inner loop of gradient descent."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from compressor.graph import capture
from compressor.trim import trim_verified

from ..graph.random_units import random_units


class Energy(nn.Module):
    def __init__(self, activation: type[nn.Module] = nn.Tanh) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(4, 12), activation(), nn.Linear(12, 10), activation(), nn.Linear(10, 1))

    def energy(self, x: Tensor) -> Tensor:
        out: Tensor = self.layers(x)
        return out.sum()


class ByFunction(Energy):
    def forward(self, x: Tensor) -> Any:
        return torch.func.grad(self.energy)(x)


class WithValue(Energy):
    def forward(self, x: Tensor) -> Any:
        return torch.func.grad_and_value(self.energy)(x)


class Forces(Energy):
    def forward(self, x: Tensor) -> Any:
        with torch.enable_grad():
            x = x.detach().requires_grad_()
            energy = self.energy(x)
            (gradient,) = torch.autograd.grad(energy, x, create_graph=True)
        return {"energy": energy, "forces": -gradient}


class ForcesAlone(Energy):
    """No history is kept, and part of what gives the energy has none on purpose."""

    def forward(self, x: Tensor) -> Any:
        with torch.enable_grad():
            x = x.detach().requires_grad_()
            with torch.no_grad():
                share = self.layers(x).sigmoid()
            return -torch.autograd.grad((share * self.layers(x)).sum(), x)[0]


class Adapted(Energy):
    """One step of an inner loop on what it was given first."""

    def forward(self, x: Tensor) -> Any:
        step = torch.func.grad(lambda z: (self.layers(z) ** 2).mean())(x)
        return self.layers(x - 0.1 * step)


class LeftOn(Energy):
    """Gradients are the caller's to switch on."""

    def forward(self, x: Tensor) -> Any:
        x = x.detach().clone().requires_grad_()
        energy = self.energy(x)
        return energy, -torch.autograd.grad(energy, x, create_graph=self.training)[0]


class OfWhatIsGiven(Energy):
    def forward(self, x: Tensor) -> Any:
        x.requires_grad_()
        return torch.autograd.grad(self.energy(x), x, create_graph=True)[0]


class OfParameters(Energy):
    def forward(self, x: Tensor) -> Any:
        with torch.enable_grad():
            own = dict(self.layers.named_parameters())
            found = torch.autograd.grad((self.layers(x) ** 2).mean(), list(own.values()), create_graph=True)
        moved = {name: tensor - 0.1 * step for (name, tensor), step in zip(own.items(), found, strict=True)}
        return torch.func.functional_call(self.layers, moved, (x,))


FORMS: dict[str, Callable[[], nn.Module]] = {
    "torch.func.grad": ByFunction,
    "torch.func.grad_and_value": WithValue,
    "autograd.grad": Forces,
    "autograd.grad without history": ForcesAlone,
    "inner loop": Adapted,
    "gradients left on": LeftOn,
    "of what is given": OfWhatIsGiven,
    "of parameters": OfParameters,
    **{
        f"autograd.grad, {activation.__name__}": lambda activation=activation: Forces(activation)  # type: ignore[misc]
        for activation in (nn.Softplus, nn.SiLU, nn.GELU, nn.ELU, nn.Mish, nn.LeakyReLU, nn.Hardswish, nn.Sigmoid)
    },
}


@pytest.mark.parametrize("form", FORMS)
def test_layers_shrink_and_the_result_is_the_same(form: str) -> None:
    torch.manual_seed(0)
    model, x = FORMS[form]().eval(), torch.randn(3, 4)
    graph = capture(model, x)
    assert len(graph.groups) == 2, [(f.place, f.operator, f.reason) for f in graph.fixed]
    units = random_units(graph)
    result = trim_verified(model, graph, units, x)
    assert not result.refused, result.check.reason
    assert result.check.error <= 1e-9
    assert sum(p.numel() for p in result.model.parameters()) < sum(p.numel() for p in model.parameters())
