"""Searches that take out blocks: budgets hold, the smallest choice is reachable, and options are honoured."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import compressor
from compressor.backbones.resnet_cifar import CifarResNet
from compressor.costs import build
from compressor.data import from_loaders
from compressor.errors import UnreachableBudgetError
from compressor.graph import capture
from compressor.graph.graph import Graph
from compressor.search.base import SearchContext
from compressor.search.constraints.block_choice import cheapest_block
from compressor.search.constraints.constraint import Constraint, hard_sizes
from compressor.search.constraints.greedy import shrink
from compressor.search.constraints.projector import Projector
from compressor.search.methods.figs.config import FigsConfig
from compressor.search.methods.figs.decision import decide
from compressor.search.methods.figs.learner import FigsLearner
from compressor.search.methods.figs.method import Figs
from compressor.search.methods.oneshot.method import OneShot
from compressor.search.result import SearchResult
from compressor.trim import trim_verified

X = torch.randn(1, 3, 16, 16)


@pytest.fixture(scope="module")
def model() -> nn.Module:
    torch.manual_seed(0)
    return CifarResNet(3).eval()


@pytest.fixture(scope="module")
def graph(model: nn.Module) -> Graph:
    return capture(model, X)


def flops(graph: Graph, share: float) -> Constraint:
    term = build("flops", graph)
    return Constraint(term, share * term.original)


def cost(constraint: Constraint, graph: Graph, result: SearchResult) -> float:
    return float(constraint.term(hard_sizes(graph, result.units, result.gates)))


def smallest(graph: Graph, *, depth: bool) -> float:
    projector = Projector(graph, [flops(graph, 1.0)], depth=depth)
    units = projector.minimal(np.zeros(graph.n_units))
    return float(projector.costs(units, ~projector.removable)[0]) / build("flops", graph).original


def test_plain_width_leads_where_all_blocks_matter(model: nn.Module, graph: Graph) -> None:
    constraint = flops(graph, 0.5)
    result = OneShot().run(SearchContext(model, graph, [constraint]))
    assert result.gates is not None
    assert result.gates.all()
    assert 0.97 * constraint.limit <= cost(constraint, graph, result) <= constraint.limit


def test_a_block_that_does_nothing_goes_first(graph: Graph) -> None:
    projector = Projector(graph, [flops(graph, 0.7)])
    importance = np.ones(len(graph.blocks))
    importance[3] = 1e-6
    worth = np.ones(graph.n_units)
    gates = np.ones(len(graph.blocks), dtype=np.bool_)
    assert cheapest_block(projector, graph.all_units(), gates, importance, worth, np.array([0.4])) == 3
    gates[3] = False
    importance[:] = 1e6
    assert cheapest_block(projector, graph.all_units(), gates, importance, worth, np.array([0.4])) is None


def test_what_only_depth_reaches_is_reached_with_depth_alone(model: nn.Module, graph: Graph) -> None:
    with_depth, without = smallest(graph, depth=True), smallest(graph, depth=False)
    assert with_depth < without
    constraint = flops(graph, (with_depth + without) / 2)
    result = OneShot().run(SearchContext(model, graph, [constraint]))
    assert result.gates is not None
    assert not result.gates.all()
    assert cost(constraint, graph, result) <= constraint.limit
    checked = trim_verified(model, graph, result.units, X, gates=result.gates)
    assert checked.check.passed
    assert not checked.refused
    with pytest.raises(UnreachableBudgetError):
        OneShot().run(SearchContext(model, graph, [constraint], options={"depth": False}))


def test_nothing_below_the_smallest_is_promised(model: nn.Module, graph: Graph) -> None:
    with pytest.raises(UnreachableBudgetError, match="smallest"):
        OneShot().run(SearchContext(model, graph, [flops(graph, smallest(graph, depth=True) * 0.99)]))


def test_whole_blocks_and_groups_stay(model: nn.Module, graph: Graph) -> None:
    block = graph.blocks[2]
    inside = {graph.groups[g].name for g in block.groups}
    constraint = flops(graph, 0.5)
    projector = Projector(graph, [constraint], whole={block.name, *inside})
    gates = np.zeros(len(graph.blocks), dtype=np.bool_)
    decision = SearchResult(graph.all_units(), torch.ones(graph.n_units), [], gates)
    again = shrink(projector, decision)
    assert again.gates is not None
    assert again.gates[block.index]
    assert all(again.units[graph.groups[g].units].all() for g in block.groups)
    assert cost(constraint, graph, again) <= constraint.limit


def test_restore_puts_back_what_fits_the_most_important_first(graph: Graph) -> None:
    one = float(Projector(graph, [flops(graph, 1.0)]).marginals(graph.all_units())[1].max())
    projector = Projector(graph, [flops(graph, 1.0 - 5.5 * one)])
    gates = np.zeros(len(graph.blocks), dtype=np.bool_)
    priority = np.arange(len(graph.blocks), dtype=np.float64)
    kept = projector.restore(graph.all_units(), gates, priority)
    assert kept[-1]
    assert not kept.all()
    assert projector.fits(graph.all_units(), kept)


def test_figs_decides_gates_by_probability(graph: Graph) -> None:
    constraint = flops(graph, 0.6)
    projector = Projector(graph, [constraint])
    blocks = torch.full((len(graph.blocks),), 4.0, dtype=torch.float64)
    blocks[[1, 4]] = -4.0
    units, gates = decide(projector, torch.full((graph.n_units,), 2.0, dtype=torch.float64), blocks)
    assert not gates[[1, 4]].any()
    assert gates[[0, 2, 3, 5, 6]].all()
    assert projector.fits(units, gates)
    _, gates = decide(Projector(graph, [constraint], depth=False), torch.zeros(graph.n_units).double(), blocks)
    assert gates.all()


def test_figs_counts_expected_gates_in_the_cost(model: nn.Module, graph: Graph) -> None:
    session = FigsLearner(model, Projector(graph, [flops(graph, 0.5)]), FigsConfig())
    sizes = session.expected()
    assert sizes.gates.shape == (len(graph.blocks),)
    assert torch.allclose(sizes.gates, torch.sigmoid(torch.tensor(4.0)).double(), atol=1e-6)
    held = FigsLearner(model, Projector(graph, [flops(graph, 0.5)], depth=False), FigsConfig(depth=False))
    assert bool((held.expected().gates == 1).all())


@pytest.mark.parametrize("depth", [True, False])
def test_figs_runs_with_and_without_depth(graph: Graph, depth: bool) -> None:
    torch.manual_seed(0)
    model = CifarResNet(3)
    images, targets = torch.randn(48, 3, 16, 16), torch.randint(0, 10, (48,))
    data = from_loaders([(images[i : i + 16], targets[i : i + 16]) for i in range(0, 48, 16)])
    constraint = flops(graph, 0.4)
    options = {"epochs": 1, "batch_size": 16, "depth": depth}
    result = Figs().run(SearchContext(model, graph, [constraint], data=data, options=options))
    assert result.gates is not None
    assert cost(constraint, graph, result) <= constraint.limit
    assert depth or result.gates.all()
    assert trim_verified(model, graph, result.units, X, gates=result.gates).check.passed


class SideBySide(nn.Module):
    """Three layers of two unlike operators each, none of which is an identity."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 16, 1)
        self.far = nn.ModuleList(nn.Conv2d(16, 16, 5, padding=2) for _ in range(3))
        self.near = nn.ModuleList(nn.Conv2d(16, 16, 1) for _ in range(3))
        self.head = nn.Conv2d(16, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        for far, near in zip(self.far, self.near, strict=True):
            x = torch.relu(far(x) + near(x))
        return self.head(x)  # type: ignore[no-any-return]


def test_without_data_channels_go_before_operators_side_by_side() -> None:
    torch.manual_seed(0)
    model = SideBySide().eval()
    for layer in model.far:
        torch.nn.init.normal_(layer.weight, std=0.01)  # which says little of what it does
    result = compressor.compress(model, torch.randn(1, 3, 8, 8), {"params": "40%"})
    assert result.report.budgets[0].met
    assert not result.report.blocks_removed
