"""Norms over what is kept: the derivative by hand is that of the same arithmetic written out, whatever asks for it."""

from __future__ import annotations

import itertools

import pytest
import torch
from torch import Tensor

from compressor.masks.standardised import _composed, standardised

FORMS = list(itertools.product((True, False), (True, False), (True, False), ("soft", "hard", "one", "none")))


def inputs(weight: bool, bias: bool, kind: str) -> list[Tensor | None]:
    draw = torch.Generator().manual_seed(3)
    x = 2 + torch.randn(5, 7, dtype=torch.float64, generator=draw)
    mask = torch.rand(7, dtype=torch.float64, generator=draw)
    if kind == "hard":
        mask = (mask > 0.4).double()
    elif kind != "soft":
        mask = torch.zeros(7, dtype=torch.float64)
        mask[2] = float(kind == "one")
    both = [torch.randn(7, dtype=torch.float64, generator=draw) if there else None for there in (weight, bias)]
    return [None if each is None else each.requires_grad_() for each in (x, mask, *both)]


def shares(mask: Tensor) -> Tensor:
    return mask / mask.sum().clamp_min(1e-6)


@pytest.mark.parametrize(("centred", "weight", "bias", "kind"), FORMS)
def test_derivatives(centred: bool, weight: bool, bias: bool, kind: str) -> None:
    x, mask, w, b = given = inputs(weight, bias, kind)
    found = standardised(x, shares(mask), w, b, 1e-5, centred=centred)
    torch.testing.assert_close(found, _composed(x, shares(mask), w, b, 1e-5, centred))
    leaves = [each for each in given if each is not None]
    toward = torch.linspace(-1, 1, 35, dtype=torch.float64).view(5, 7)
    by_hand = torch.autograd.grad(standardised(x, shares(mask), w, b, 1e-5, centred=centred), leaves, toward)
    written = torch.autograd.grad(_composed(x, shares(mask), w, b, 1e-5, centred), leaves, toward)
    torch.testing.assert_close(by_hand, written)


@pytest.mark.parametrize("centred", [True, False])
def test_derivatives_of_derivatives(centred: bool) -> None:
    """A penalty on a gradient asks for them."""
    found = []
    for form in (lambda *a: standardised(*a[:5], centred=a[5]), _composed):
        x, mask, w, b = given = inputs(True, True, "soft")
        first = torch.autograd.grad(form(x, shares(mask), w, b, 1e-5, centred).pow(3).sum(), x, create_graph=True)
        found.append(torch.autograd.grad(first[0].square().sum(), given))
    torch.testing.assert_close(found[0], found[1])


def test_under_transforms_and_without_gradients() -> None:
    x, mask, w, b = inputs(True, True, "hard")
    expected = _composed(x, shares(mask), w, b, 1e-5, True)
    with torch.no_grad():
        torch.testing.assert_close(standardised(x, shares(mask), w, b, 1e-5, centred=True), expected)
    total = lambda x: standardised(x, shares(mask), w, b, 1e-5, centred=True).square().sum()  # noqa: E731
    torch.testing.assert_close(torch.func.grad(total)(x), torch.autograd.grad(total(x), x)[0])
    _, along = torch.func.jvp(total, (x,), (torch.ones_like(x),))
    torch.testing.assert_close(along, torch.autograd.grad(total(x), x)[0].sum())


@pytest.mark.parametrize("centred", [True, False])
def test_many_gradients_at_once(centred: bool) -> None:
    """Jacobians that are vectorised hand a backward all rows together."""
    x, mask, w, b = given = inputs(True, True, "soft")
    found = standardised(x, shares(mask), w, b, 1e-5, centred=centred)
    rows = torch.eye(35, dtype=torch.float64).view(35, 5, 7)
    each = [torch.autograd.grad(found, given, row, retain_graph=True) for row in rows]
    together = torch.autograd.grad(found, given, rows, is_grads_batched=True)
    for one, many in zip(zip(*each, strict=True), together, strict=True):
        torch.testing.assert_close(many, torch.stack(one))


def test_mixed_precision_keeps_the_statistics_whole() -> None:
    x, mask, w, b = (each.detach().float() for each in inputs(True, True, "soft"))
    with torch.autocast("cpu", torch.bfloat16):
        found = standardised((100 + x).requires_grad_(), shares(mask), w, b, 1e-5, centred=True)
        found.sum().backward()
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, _composed(100 + x, shares(mask), w, b, 1e-5, True))
