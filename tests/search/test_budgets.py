"""Budgets are met: by both methods, several at once, close to the limit, on the grid of widths asked for."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torchvision import models

from compressor.backbones.resnet_cifar import CifarResNet
from compressor.costs import build
from compressor.errors import UnreachableBudgetError
from compressor.graph import Graph, capture
from compressor.search import METHODS
from compressor.search.base import SearchContext
from compressor.search.constraints.constraint import Constraint, hard_sizes, readable
from compressor.search.constraints.projector import Projector
from compressor.search.result import SearchResult
from tests.search.search_models import NETWORKS, context, trace

QUICK = {"figs": {"epochs": 1, "batch_size": 32}, "oneshot": {}}

BACKBONES: dict[str, tuple[Callable[[], nn.Module], int]] = {
    "alexnet": (lambda: models.alexnet(num_classes=10), 64),
    "vgg11_bn": (lambda: models.vgg11_bn(num_classes=10), 32),
    "resnet18": (models.resnet18, 64),
    "resnet50": (models.resnet50, 64),
    "resnext50_32x4d": (models.resnext50_32x4d, 64),
    "densenet121": (models.densenet121, 64),
    "mobilenet_v2": (models.mobilenet_v2, 64),
    "mobilenet_v3_small": (models.mobilenet_v3_small, 64),
    "mnasnet0_5": (models.mnasnet0_5, 64),
    "efficientnet_b0": (models.efficientnet_b0, 64),
    "regnet_y_400mf": (models.regnet_y_400mf, 64),
    "squeezenet1_1": (models.squeezenet1_1, 64),
    "googlenet": (lambda: models.googlenet(init_weights=False), 64),
    "shufflenet_v2_x1_0": (models.shufflenet_v2_x1_0, 64),
    "convnext_tiny": (models.convnext_tiny, 64),
    "resnet20_cifar": (lambda: CifarResNet(3), 32),
}


def backbone(name: str) -> tuple[nn.Module, Graph]:
    torch.manual_seed(0)
    factory, size = BACKBONES[name]
    model = factory().eval()
    return model, capture(model, torch.zeros(1, 3, size, size))


def search(method: str, given: SearchContext) -> tuple[SearchResult, dict[str, float]]:
    """What a method decides, and each budgeted cost as a fraction of its limit."""
    given.options = {**QUICK[method], **given.options}
    result = METHODS.get(method)().run(given)
    sizes = hard_sizes(given.graph, result.units, given.graph.gates(result.gates))
    return result, {c.name: float(c.term(sizes)) / c.limit for c in given.constraints}


@pytest.mark.parametrize("name", BACKBONES)
def test_half_the_multiply_adds_within_three_percent(name: str) -> None:
    model, graph = backbone(name)
    term = build("flops", graph)
    given = SearchContext(model, graph, [Constraint(term, 0.5 * term.original)])
    _, reached = search("oneshot", given)
    assert 0.97 <= reached["flops"] <= 1.0


@pytest.mark.parametrize(
    ("name", "shares"),
    [
        ("resnet18", {"flops": 0.5, "params": 0.4, "memory": 0.8}),
        ("resnet20_cifar", {"flops": 0.3, "params": 0.6, "memory": 0.6}),
        ("mobilenet_v2", {"flops": 0.6, "params": 0.3, "memory": 0.7}),
        ("vgg11_bn", {"flops": 0.5, "params": 0.1, "memory": 0.9}),
        ("squeezenet1_1", {"flops": 0.7, "params": 0.5, "memory": 0.7}),
        ("convnext_tiny", {"flops": 0.5, "params": 0.5, "memory": 0.9}),
    ],
)
def test_many_budgets_hold_at_once(name: str, shares: dict[str, float]) -> None:
    model, graph = backbone(name)
    terms = {cost: build(cost, graph) for cost in shares}
    given = SearchContext(model, graph, [Constraint(terms[c], s * terms[c].original) for c, s in shares.items()])
    _, reached = search("oneshot", given)
    assert max(reached.values()) <= 1.0
    assert max(reached.values()) >= 0.9, "at least one budget is made use of"


@pytest.mark.parametrize("network", NETWORKS)
@pytest.mark.parametrize("method", QUICK)
@pytest.mark.parametrize("shares", [{"flops": 0.4}, {"params": 0.5}, {"flops": 0.6, "params": 0.5, "memory": 0.9}])
def test_both_methods_meet_every_budget(network: str, method: str, shares: dict[str, float]) -> None:
    _, reached = search(method, context(NETWORKS[network](), shares))
    assert max(reached.values()) <= 1.0


@pytest.mark.parametrize("method", QUICK)
@pytest.mark.parametrize("round_to", [2, 4, 8])
@pytest.mark.parametrize("network", NETWORKS)
def test_widths_are_multiples_or_whole(method: str, round_to: int, network: str) -> None:
    given = context(NETWORKS[network](), {"flops": 0.6}, round_to=round_to)
    result, reached = search(method, given)
    assert max(reached.values()) <= 1.0
    for group in given.graph.groups:
        kept = int(result.units[group.units].sum())
        assert kept == len(group) or kept * group.width % round_to == 0
        assert kept >= 1


@pytest.mark.parametrize("method", QUICK)
def test_the_same_seed_decides_the_same(method: str) -> None:
    def decided(seed: int) -> tuple[Any, dict[str, torch.Tensor]]:
        model = NETWORKS["residual"]()
        result, _ = search(method, context(model, {"flops": 0.5}, seed=seed))
        return (result.units, result.gates), model.state_dict()

    (first, weights), (again, same) = decided(3), decided(3)
    np.testing.assert_array_equal(first[0], again[0])
    np.testing.assert_array_equal(first[1], again[1])
    assert all(torch.equal(weights[name], same[name]) for name in weights)


def test_oneshot_leaves_the_weights_alone() -> None:
    model = NETWORKS["residual"]()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    for options in ({"importance": "magnitude"}, {"importance": "taylor"}):
        search("oneshot", context(model, {"flops": 0.5}, options=options))
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())


def test_oneshot_without_depth_keeps_every_block() -> None:
    result, reached = search("oneshot", context(NETWORKS["residual"](), {"flops": 0.3}, options={"depth": False}))
    assert result.gates is not None
    assert result.gates.all()
    assert reached["flops"] <= 1.0


def test_what_matters_least_goes_first() -> None:
    """A channel whose weights are zero is removed before any that is not."""
    model: Any = NETWORKS["plain"]()
    dead = [1, 5, 6, 11]
    with torch.no_grad():
        for parameter in (model.conv1.weight, model.conv1.bias, model.bn.weight, model.bn.bias):
            parameter[dead] = 0
        model.conv2.weight[:, dead] = 0
    given = context(model, {"flops": 0.6}, options={"importance": "magnitude"})
    result, _ = search("oneshot", given)
    first = given.graph.group("conv1")
    kept = result.units[first.units]
    assert not kept[dead].any()


@pytest.mark.parametrize("network", NETWORKS)
@pytest.mark.parametrize("cost", ["flops", "params", "memory"])
def test_an_unreachable_budget_names_the_smallest_cost_which_then_is_reached(network: str, cost: str) -> None:
    model = NETWORKS[network]()
    graph = trace(model)
    term = build(cost, graph)
    projector = Projector(graph, [Constraint(term, 1e-6 * term.original)])
    with pytest.raises(UnreachableBudgetError, match="smallest") as caught:
        projector.check_reachable()
    smallest = float(projector.costs(projector.minimal(np.zeros(graph.n_units)), ~projector.removable)[0])
    assert readable(smallest, term.unit) in str(caught.value)
    given = context(model, {cost: smallest * (1 + 1e-9) / term.original})
    _, reached = search("oneshot", given)
    assert reached[cost] <= 1.0


def test_filling_never_leaves_the_budget_nor_the_grid() -> None:
    graph = trace(NETWORKS["residual"]())
    random = np.random.default_rng(0)
    for round_to in (1, 4):
        for share in (0.2, 0.5, 0.8):
            terms = [build(name, graph) for name in ("flops", "params")]
            projector = Projector(graph, [Constraint(t, share * t.original) for t in terms], round_to=round_to)
            scores = random.random(graph.n_units)
            units = projector.minimal(scores)
            filled = projector.fill(units, scores)
            assert projector.fits(filled)
            assert (filled | ~units).all(), "nothing that was kept is lost"
            counts = projector.counts(filled)
            np.testing.assert_array_equal(counts, projector.allowed(counts))


@pytest.mark.parametrize(
    ("value", "unit", "text"),
    [(1.83e9, "macs", "1.83 GMACs"), (2e12, "macs", "2 TMACs"), (512, "bytes", "512 B"), (2.5, "ms", "2.5 ms")],
)
def test_readable(value: float, unit: str, text: str) -> None:
    assert readable(value, unit) == text
