"""Taking a network from what a search left: by any of the costs, whatever the search was told of others."""

from __future__ import annotations

import pytest
import torch

from compressor.budget import parse_budgets
from compressor.pipeline.console import Console
from compressor.pipeline.events import Events
from compressor.pipeline.networks import networks_of
from compressor.pipeline.stages import Pipeline
from compressor.pipeline.sweeping import build_picked
from tests.search.test_pooling import staged
from tests.search.test_supernet import run


@pytest.fixture(scope="module")
def searched() -> Pipeline:
    return run({"flops": "90%", "params": "90%"}, lowest="flops=40%,params=60%", epochs=0, population=6, generations=0)


@pytest.mark.parametrize("costs", [("flops",), ("params",), ("memory",), ("memory", "params"), ("flops", "params")])
@pytest.mark.parametrize("tight", [True, False])
def test_budgets_of_a_pick_need_not_be_those_of_the_search(
    costs: tuple[str, ...], tight: bool, searched: Pipeline
) -> None:
    networks = networks_of(searched)
    assert networks is not None
    smallest = min(networks.front, key=lambda each: each.costs["flops"])
    asked = parse_budgets({cost: smallest.costs[cost] if tight else "100%" for cost in costs})
    with torch.random.fork_rng():
        example, settings = searched.example, searched.settings
        picked, report = build_picked(networks, staged(), example, settings, asked, events=Events(Console(quiet=True)))
    assert [budget.cost for budget in report.budgets] == list(costs)
    assert all(budget.met for budget in report.budgets)
    assert sum(parameter.numel() for parameter in picked.compressed.parameters()) == picked.candidate.costs["params"]
