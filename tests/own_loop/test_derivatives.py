"""Loops that take derivatives by other means than ``loss.backward()``."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tests.own_loop.loops import Convolutions, Net, batch, loop, made, opened

NO_GRADIENT = "Masks had no gradient of the loss"
X, Y = batch(0)


def vectorised(model: nn.Module) -> Tensor:
    x = X.clone().requires_grad_()
    outputs = model(x)[0]
    found: Tensor = torch.autograd.grad(outputs, x, torch.eye(3), is_grads_batched=True)[0][:, 0]
    return found


def by_rows(model: nn.Module) -> Tensor:
    x = X.clone().requires_grad_()
    outputs = model(x)[0]
    return torch.stack([torch.autograd.grad(each, x, retain_graph=True)[0][0] for each in outputs])


JACOBIANS: dict[str, Callable[[nn.Module], Tensor]] = {
    "is_grads_batched": vectorised,
    "functional": lambda model: torch.autograd.functional.jacobian(model, X[:1], vectorize=True)[0, :, 0],
    "jacrev": lambda model: torch.func.jacrev(model)(X[:1])[0, :, 0],
    "jacfwd": lambda model: torch.func.jacfwd(model)(X[:1])[0, :, 0],
    "vmap": lambda model: torch.func.vmap(torch.func.jacrev(lambda x: model(x[None])[0]))(X)[0],
}


@pytest.mark.parametrize("name", JACOBIANS)
@pytest.mark.parametrize("search", ["figs", "dnarch"])
@pytest.mark.parametrize("kind", [Net, Convolutions])
def test_jacobians_are_those_of_the_masked_model(kind: Any, search: str, name: str) -> None:
    """Each in a session of its own, whose masks are drawn there."""
    found: list[Tensor] = []
    expected: list[Tensor] = []
    for gathered, jacobian in ((found, JACOBIANS[name]), (expected, by_rows)):
        model = made(kind).train()
        opened(model, search)
        gathered.append(jacobian(model))
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


def test_transforms_draw_what_a_plain_loop_draws() -> None:
    model = made(Net)
    loop(model, call=torch.func.vmap(model)).like(loop(made(Net)))


def restricted(model: nn.Module, loss: Tensor, masks: list[nn.Parameter]) -> None:
    loss.backward(inputs=list(model.parameters()))  # type: ignore[no-untyped-call]


def taken(model: nn.Module, loss: Tensor, masks: list[nn.Parameter]) -> None:
    for p, gradient in zip(model.parameters(), torch.autograd.grad(loss, list(model.parameters())), strict=True):
        p.grad = gradient


def taken_with_masks(model: nn.Module, loss: Tensor, masks: list[nn.Parameter]) -> None:
    every = [*model.parameters(), *masks]
    for p, gradient in zip(every, torch.autograd.grad(loss, every, allow_unused=True), strict=True):
        p.grad = gradient


def plain(model: nn.Module, loss: Tensor, masks: list[nn.Parameter]) -> None:
    loss.backward()  # type: ignore[no-untyped-call]


def twice(model: nn.Module, loss: Tensor, masks: list[nn.Parameter]) -> None:
    loss.backward(create_graph=True)  # type: ignore[no-untyped-call]


@pytest.mark.filterwarnings("ignore:Using backward")
@pytest.mark.parametrize("with_cost", [True, False])
@pytest.mark.parametrize("search", ["figs", "dnarch"])
@pytest.mark.parametrize("way", [restricted, taken, taken_with_masks, plain, twice])
def test_masks_that_the_loss_does_not_reach_are_told(way: Callable[..., None], search: str, with_cost: bool) -> None:
    model = made(Net).train()
    session = opened(model, search)
    x = X.clone().requires_grad_()
    torch.autograd.grad(model(x).sum(), x)  # says nothing about masks
    loss, cost = F.cross_entropy(model(X), Y), session.cost_loss()
    way(model, loss + cost if with_cost else loss, session.parameters())
    if not with_cost:
        cost.backward()  # type: ignore[no-untyped-call]
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        session.step()
    assert [str(each.message)[: len(NO_GRADIENT)] for each in told] == [NO_GRADIENT] * (way in (restricted, taken))
