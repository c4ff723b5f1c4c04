"""The subnets of the benchmark of the One-Shot space, and what its table makes of rows."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch

from benchmarks.accuracy.search_space import operators, planned
from benchmarks.accuracy.search_space_subnets import Space, drawn, even, packed, target, unpacked
from benchmarks.accuracy.search_space_table import Cloud, searches
from compressor.backbones.one_shot import AGGREGATORS


@pytest.mark.parametrize("aggregator", AGGREGATORS)
def test_subnets_cost_what_they_aim_at_and_have_the_weights_of_the_start(aggregator: str) -> None:
    space = Space.of(aggregator, 0)
    start = {tuple(p.shape): p for name, p in space.model.named_parameters() if name == "stem.0.weight"}
    for index in range(4):
        units, gates = drawn(space, index)
        network = space.network(units, gates)
        share = space.counted(network)["macs"] / space.macs
        assert 0.9 * target(index) <= share <= target(index)
        assert sum(len([b for b in each.blocks if gates[b]]) for each in space.graph.parallels) == operators(network)
        assert all(any(gates[b] for b in each.blocks) for each in space.graph.parallels)
        assert np.array_equal(unpacked(packed(units), len(units)), units)
        own = dict(network.named_parameters())["stem.0.weight"]
        (whole,) = start.values()
        assert all(any(torch.equal(row, other) for other in whole) for row in own)
    again = drawn(Space.of(aggregator, 0), 3)
    assert np.array_equal(units, again[0])
    assert np.array_equal(gates, again[1])
    network = space.network(*even(space, 0.2))
    assert 0.19 <= space.counted(network)["macs"] / space.macs <= 0.2
    assert operators(network) == 20


def test_any_first_random_subnets_are_spread_over_the_costs() -> None:
    for n in (5, 10, 30):
        logs = sorted(math.log(target(i)) for i in range(n))
        assert max(b - a for a, b in pairwise(logs)) < 2.7 * (math.log(10) / n)


def test_every_run_is_planned_once_and_a_search_before_what_it_decides() -> None:
    runs = list(planned(["concat", "add"], [0, 1, 2], 30))
    keys = [tuple(sorted(run.items())) for run in runs]
    assert len(set(keys)) == len(keys) == 2 * (3 * 3 * 3 + 30)
    for run in runs:
        if run["kind"] == "retrained":
            assert runs.index({**run, "kind": "figs"}) < runs.index(run)


def test_the_table_tells_how_far_a_network_is_above_the_random_ones() -> None:
    rows: list[dict[str, Any]] = [
        {"aggregator": "add", "kind": "random", "macs": 2.0**i * 1e5, "accuracy": 0.2 + 0.02 * i, "seconds": 1.0}
        for i in range(5)
    ]
    cloud = Cloud.of(rows)
    assert cloud is not None
    assert cloud.slope * math.log(2) == pytest.approx(0.02)
    assert cloud.spread == pytest.approx(0, abs=1e-9)
    common = {"aggregator": "add", "budget": 0.2, "macs": 4.5e5, "operators": 7, "seconds": 2.0}
    for seed, (figs, uniform) in enumerate([(0.30, 0.23), (0.32, 0.27)]):
        rows.append({**common, "kind": "figs", "seed": seed, "accuracy": figs})
        rows.append({**common, "kind": "uniform", "seed": seed, "accuracy": uniform})
    assert (cloud.better(rows[-2]), cloud.better(rows[-3]), cloud.cheaper(rows[-1])) == (0, 1, 3)
    figs, uniform = searches(rows).splitlines()[2:]
    assert "31.0 ± 1.0 | +6.0 ± 1.0 |" in figs
    assert "25.0 ± 2.0 |  |" in uniform
    assert Cloud.of(rows[:3]) is None
