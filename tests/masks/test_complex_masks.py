"""Masks reach complex weights and what transforms do: gradients of masks and weights are those of the plain formula."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import Tensor

import compressor
from compressor.graph import capture
from compressor.masks import Masking
from compressor.search.importance.base import Ranking
from compressor.search.importance.norms import l2
from tests.graph.tiny import CASES
from tests.graph.uses_along import IMAGE

NAMES = ["global complex filter", "spectral layer", "spectral residual", "complex linear", "complex layers",
         "transform rfft2", "along sort", "along fold", "product cosine of channels",
         "product all distances"]  # fmt: skip


def _case(name: str) -> tuple[torch.nn.Module, tuple[Tensor, ...]]:
    torch.manual_seed(0)
    model, inputs = next(case for case in CASES if case.name == name).build()
    return model.eval(), inputs


@pytest.mark.parametrize("name", NAMES)
def test_gradients_reach_every_weight_and_mask(name: str) -> None:
    model, inputs = _case(name)
    graph = capture(model, inputs)
    units = torch.ones(graph.n_units, requires_grad=True)
    with Masking(model, graph).applied(units):
        output = model(*inputs)
    output.abs().square().sum().backward()
    assert units.grad is not None
    assert bool(units.grad.isfinite().all())
    assert bool((units.grad != 0).any())
    for parameter in model.parameters():
        assert parameter.grad is not None
        assert bool(torch.isfinite(parameter.grad.abs()).all())


def test_the_gradient_of_a_mask_on_complex_weights_is_that_of_differences() -> None:
    model, inputs = _case("spectral layer")
    model, inputs = model.double(), tuple(t.double() for t in inputs)
    with torch.no_grad():
        model.w = torch.nn.Parameter(model.w.to(torch.complex128))  # type: ignore[union-attr, operator]
    graph = capture(model, inputs)
    masking = Masking(model, graph)

    def loss(units: Tensor) -> Tensor:
        with masking.applied(units):
            return model(*inputs).square().sum()  # type: ignore[no-any-return]

    units = torch.rand(graph.n_units, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(loss, (units,))


def test_complex_weights_matter_by_their_modulus() -> None:
    model, inputs = _case("spectral layer")
    graph = capture(model, inputs)
    ranking = Ranking(SimpleNamespace(model=model, graph=graph, example=None, warn=print))  # type: ignore[arg-type]
    before = l2(ranking)[0].copy()
    ranking.__dict__.pop("weights")
    with torch.no_grad():
        model.w *= torch.exp(1j * torch.rand(model.w.shape))  # type: ignore[union-attr, operator, arg-type]  # a phase each
    assert np.allclose(l2(ranking)[0], before, rtol=1e-5)


def test_a_network_with_complex_weights_is_saved_and_loaded(tmp_path: object) -> None:
    model, inputs = _case("spectral residual")
    result = compressor.compress(model, inputs[0], {"params": "70%"})
    result.save(tmp_path)  # type: ignore[arg-type]
    again = compressor.load(tmp_path, model=_case("spectral residual")[0])  # type: ignore[arg-type]
    assert result.model.w.is_complex()  # type: ignore[union-attr, operator]
    assert torch.equal(again(torch.ones(IMAGE)), result.model.eval()(torch.ones(IMAGE)))
