"""Latency by where a network pools: of every configuration as of the network traced with it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from compressor.graph import Graph, capture
from compressor.graph.choices import add_choices
from compressor.latency.subnets import Made, Subnet, random_choices
from compressor.latency.target import LatencySession
from compressor.pipeline.chosen import with_choices
from compressor.search.constraints.constraint import hard_sizes
from compressor.search.result import SearchResult
from tests.graph.test_stages import conv
from tests.latency.simulated_models import simulated

DECIDES = frozenset({"pooling"})


def network() -> nn.Module:
    torch.manual_seed(0)
    layers = [conv(3, 8), conv(8, 16, stride=2), conv(16, 16), conv(16, 32, stride=2), conv(32, 32)]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(32, 3)).eval()


def example() -> Tensor:
    return torch.randn(1, 3, 24, 20, generator=torch.Generator().manual_seed(0))


def make(model: nn.Module, graph: Graph, subnet: Subnet) -> Made:
    decision = SearchResult(subnet.units, torch.zeros(graph.n_units), [])
    made = with_choices(model, graph, decision, lambda changed: capture(changed, example()))
    return Made(made.model, made.graph, made.units, made.gates)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("lut")


@pytest.fixture(scope="module")
def session(folder: Path) -> Iterator[LatencySession]:
    model = network()
    graph = capture(model, example())
    add_choices(model, graph, ["pooling"])
    found = LatencySession(
        model, graph, example(), simulated(folder), decides=DECIDES, make=lambda m, s: make(m, graph, s)
    )
    yield found
    found.close()


def picked(graph: Graph, index: int) -> np.ndarray:
    units = graph.all_units()
    units[graph.choices[0].units] = np.arange(len(graph.choices[0])) == index
    return units


def test_every_configuration_is_predicted_as_the_network_traced_with_it(session: LatencySession, folder: Path) -> None:
    graph, term = session.graph, session.term
    for index in range(len(graph.choices[0])):
        units = picked(graph, index)
        made = make(network(), graph, Subnet(units))
        other = LatencySession(made.model, made.graph, example(), simulated(folder), decides=frozenset({"depth"}))
        with contextlib.closing(other):
            other.term.coefficients = term.coefficients
            assert float(term(hard_sizes(graph, units))) == pytest.approx(other.term.original, rel=1e-9)


def test_predictions_are_calibrated_with_configurations_from_cheap_to_dear(session: LatencySession) -> None:
    graph = session.graph
    found = random_choices(graph, 6, decides=DECIDES)
    assert len({graph.choices[0].chosen(subnet.units) for subnet in found}) >= 4
    assert session.prediction.held_out["mean_error"] < 0.05
