"""Masks of choices: weights are probabilities, hard ones are the network with the choice made, gradients reach both."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from compressor.architecture.architecture import Architecture
from compressor.architecture.edits import EDITS, ReplaceConvolution
from compressor.costs import Sizes, build
from compressor.errors import UnsupportedModelError
from compressor.graph import Graph, capture
from compressor.graph.choices import CHOICES, ChoiceSite, add_choices
from compressor.graph.groups import Alternative
from compressor.masks.categorical import Categorical, Mixtures

X = torch.randn(2, 3, 9, 9, generator=torch.Generator().manual_seed(0))
KERNELS = ([3, 3], [1, 1], [5, 5])


def kernels(model: nn.Module, graph: Graph) -> list[ChoiceSite]:
    """Every convolution may have any of three kernels, of which the larger cost more."""
    return [
        ChoiceSite(
            name,
            [
                Alternative(f"{k[0]}x{k[1]}", () if k == KERNELS[0] else (ReplaceConvolution(name, k, [1, 1]),))
                for k in KERNELS
            ],
            scaled={name: [k[0] * k[1] for k in KERNELS]},
        )
        for name, module in model.named_modules()
        if isinstance(module, nn.Conv2d)
    ]


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> tuple[nn.Module, Graph]:
    monkeypatch.setitem(CHOICES._known(), "kernels", "tests.masks.test_categorical:kernels")
    torch.manual_seed(0)
    head = [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 4)]
    model = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 6, 3, padding=1), nn.ReLU(), *head)
    graph = capture(model, X)
    add_choices(model, graph, ["kernels"])
    assert set(EDITS) >= {"replace_convolution"}
    return model, graph


def test_probabilities_sum_to_one_and_costs_are_their_expectation(made: tuple[nn.Module, Graph]) -> None:
    _, graph = made
    masks = Categorical(graph, favour=1.0)
    assert masks.decide().tolist() == [0, 0]
    p = masks.probabilities()
    assert all(float(part.detach().sum()) == pytest.approx(1) for part in masks.split(p))
    units = masks.into(torch.ones(graph.n_units, dtype=torch.float64), p)
    for name in ("flops", "params"):
        term = build(name, graph)
        expected = 0.0
        for first in range(3):
            for second in range(3):
                hard = torch.zeros_like(p)
                hard[[first, 3 + second]] = 1
                share = float(p[first] * p[3 + second])
                expected += share * float(term(Sizes(graph, masks.into(torch.ones_like(units), hard))))
        assert float(term(Sizes(graph, units))) == pytest.approx(expected)
    build("flops", graph)(Sizes(graph, units)).backward()  # type: ignore[no-untyped-call]
    assert masks.logits.grad is not None
    assert masks.logits.grad[2] > masks.logits.grad[0] > masks.logits.grad[1], "the larger a kernel, the dearer"


@pytest.mark.parametrize("chosen", [(0, 0), (1, 2), (2, 1)])
def test_a_hard_mixture_is_the_network_with_the_choice_made(
    made: tuple[nn.Module, Graph], chosen: tuple[int, int]
) -> None:
    model, graph = made
    edits = tuple(e for c, i in zip(graph.choices, chosen, strict=True) for e in c.alternatives[i].edits)
    shapes = {name: list(p.shape) for name, p in model.named_parameters()}
    changed = Architecture("Sequential", shapes, edits).apply_(copy.deepcopy(model))
    weights = [torch.eye(3)[i] for i in chosen]
    before = model(X)
    with Mixtures(model, graph).applied(weights):
        torch.testing.assert_close(model(X), changed(X))
    assert torch.equal(model(X), before)


def test_gradients_reach_weights_and_logits(made: tuple[nn.Module, Graph]) -> None:
    model, graph = made
    masks = Categorical(graph)
    with Mixtures(model, graph).applied(masks.split(masks.probabilities())):
        model(X).square().sum().backward()
    assert masks.logits.grad is not None
    assert masks.logits.grad.abs().sum() > 0
    assert all(float(part.sum()) == pytest.approx(0, abs=1e-4) for part in masks.split(masks.logits.grad))


def test_samples_are_soft_or_hard_and_follow_the_probabilities(made: tuple[nn.Module, Graph]) -> None:
    _, graph = made
    masks = Categorical(graph)
    with torch.no_grad():
        masks.logits.copy_(torch.tensor([0.0, 1.0, 2.0, 2.0, 0.0, -1.0]))
    generator = torch.Generator().manual_seed(0)
    draws = torch.stack([masks.sample(1e-3, generator) for _ in range(3000)]).detach()
    assert np.allclose(draws.sum(1), 2, atol=1e-4)
    assert float(draws.max(1).values.min()) > 0.99
    torch.testing.assert_close(draws.mean(0), masks.probabilities().detach(), atol=0.03, rtol=0)
    soft: Tensor = masks.sample(100.0, generator)
    assert float(soft.max()) < 0.4


def test_a_choice_that_is_about_no_module_cannot_be_mixed(made: tuple[nn.Module, Graph]) -> None:
    model, graph = made
    graph.choices[0].name = "elsewhere"
    with pytest.raises(UnsupportedModelError, match="'elsewhere'"):
        Mixtures(model, graph)
