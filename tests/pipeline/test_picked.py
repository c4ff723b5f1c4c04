"""Taking a network from what a search left: by any of the costs, whatever the search was told of others."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn

from compressor.budget import parse_budgets
from compressor.latency.target import LatencySession
from compressor.pipeline.console import Console
from compressor.pipeline.events import Events
from compressor.pipeline.networks import networks_of
from compressor.pipeline.picked import Picked
from compressor.pipeline.stages import Pipeline
from compressor.pipeline.sweeping import build_picked
from compressor.search.front import Candidate, Front
from tests.search.staged import staged
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


class SlowDevice(LatencySession):
    """On which nothing holds a budget."""

    def __init__(self) -> None:
        self.prediction: Any = SimpleNamespace(target="somewhere")

    def export(self, model: nn.Module) -> Any:
        return model

    def compare(self, *_: Any, **__: Any) -> Any:
        return SimpleNamespace(original_ms=10.0, compressed_ms=20.0, margin=0.0)


@pytest.mark.parametrize("count", [1, 2, 4])
def test_where_no_network_is_quick_enough_the_other_budgets_hold_still(count: int) -> None:
    """Quicker networks there may be that are over another budget: they are none to go on with."""
    rows = [(60.0 - 10 * i, 9.0 - i) for i in range(count)] + [(90.0, 1.0), (95.0, 0.5)]
    candidates = [
        Candidate(f"s{i}", {"flops": flops, "latency": ms}, 1 - i / 10, i) for i, (flops, ms) in enumerate(rows)
    ]
    front = Front(candidates, {"flops": 100.0, "latency": 10.0})
    budgets, warned, taken = parse_budgets({"flops": "60%", "latency": "90%"}), list[str](), list[str]()
    picked: Any = SimpleNamespace(
        settings=SimpleNamespace(budgets=budgets),
        networks=SimpleNamespace(front=front),
        candidate=front.best(budgets),
        decision=object(),
        compressed=nn.Identity(),
        events=SimpleNamespace(warn=warned.append),
        _take=lambda: taken.append(picked.candidate.name),
    )
    Picked._hold_on_device(picked, SlowDevice())
    assert len(warned) == 1
    assert picked.candidate in front.within(parse_budgets({"flops": "60%"}))
    assert set(taken) <= {f"s{i}" for i in range(count)}
