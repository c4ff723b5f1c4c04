"""Latency over choices: measured by alternative, an expectation under probabilities, exact when hard, and held."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import compressor
from compressor.costs import Sizes
from compressor.errors import UnsupportedModelError
from compressor.graph import Graph, capture
from compressor.graph.choices import CHOICES, ChoiceSite, add_choices
from compressor.graph.groups import Alternative
from compressor.latency.calibrate import calibrate
from compressor.latency.profile import open_timer, profile
from compressor.latency.signatures import asked, runs, signature_of
from compressor.latency.subnets import Made, Subnet, random_choices
from compressor.latency.target import LatencySession
from compressor.latency.term import Latency
from compressor.pipeline.chosen import with_choices
from compressor.search import METHODS
from compressor.search.constraints.constraint import hard_sizes
from compressor.search.constraints.projector import Projector
from compressor.search.result import SearchResult
from compressor.testing import ChoiceContract
from lut import LatencyTable
from lut.surface.interpolate import Surface
from profilers.runtimes.simulated import SimulatedDevice
from tests.latency.simulated_models import example, network, simulated
from tests.toys import picking
from tests.toys.kernels import KERNELS, find
from tests.toys.method import ThriftyConfig

DECIDES = frozenset({"taps"})


@pytest.fixture(autouse=True, scope="module")
def installed() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(CHOICES._known(), "taps", "tests.toys.kernels:find")
        patch.setitem(METHODS._known(), "picking", "tests.toys.picking:METHOD")
        yield


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("lut")


def traced() -> tuple[nn.Module, Graph]:
    model = network()
    graph = capture(model, example())
    add_choices(model, graph, ["taps"])
    return model, graph


def make(model: nn.Module, graph: Graph, subnet: Subnet) -> Made:
    decision = SearchResult(subnet.units, torch.zeros(graph.n_units), [])
    made = with_choices(model, graph, decision, lambda changed: capture(changed, example()))
    return Made(made.model, made.graph, made.units, made.gates)


@pytest.fixture(scope="module")
def session(folder: Path, installed: None) -> Iterator[LatencySession]:
    model, graph = traced()
    found = LatencySession(
        model, graph, example(), simulated(folder), decides=DECIDES, make=lambda m, s: make(m, graph, s)
    )
    yield found
    found.close()


class TestKernels(ChoiceContract):
    kind = "taps"

    def network(self) -> nn.Module:
        return network()

    def example(self) -> Any:
        return example()


def picked(graph: Graph, *alternatives: int) -> Any:
    units = graph.all_units()
    for choice, index in zip(graph.choices, alternatives, strict=True):
        units[choice.units] = np.arange(len(choice)) == index
    return units


def test_what_keeps_its_channels_is_measured_at_these_alone(tmp_path: Path) -> None:
    _, graph = traced()
    with LatencyTable(tmp_path / "t") as table, open_timer(SimulatedDevice(), table, threads=1) as timer:
        found = profile(graph, table, timer, decides=DECIDES)
        wanted = asked(graph, DECIDES)
        for signature, each in wanted.items():
            points = table.points(found.target, signature)
            assert set(points) == set(each.points)
            one = dict.fromkeys(list(points)[:1], 1.5)
            assert Surface(one, signature.axes).value(*next(iter(one))) == pytest.approx(1.5)
        assert found.measured == sum(len(each.points) for each in wanted.values())
        assert profile(graph, table, timer, decides=DECIDES).measured == 0
        assert profile(graph, table, timer, max_points=4).measured > 0, "widths need more than that"
    kernels = {signature.kernel for signature in wanted if signature.kind == "conv2d"}
    assert kernels >= {(k, k) for k, _ in KERNELS}


def test_a_hard_choice_is_predicted_as_the_network_traced_with_it(session: LatencySession, folder: Path) -> None:
    graph, term = session.graph, session.term
    for alternatives in ((1, 1, 1), (0, 3, 4), (4, 2, 0)):
        units = picked(graph, *alternatives)
        made = make(network(), graph, Subnet(units))
        other = LatencySession(made.model, made.graph, example(), simulated(folder), decides=frozenset({"depth"}))
        with contextlib.closing(other):
            other.term.coefficients = term.coefficients
            sizes = hard_sizes(graph, units)
            assert float(term(sizes)) == pytest.approx(other.term.original, rel=1e-9)
            theirs = other.term.by_operator(Sizes.full(made.graph))
            for (place, kind, ms), (own_place, own_kind, own_ms) in zip(term.by_operator(sizes), theirs, strict=True):
                assert (place, kind) == (own_place, own_kind)
                assert ms == pytest.approx(own_ms, rel=1e-9)
            features, own = term.features(sizes), other.term.features(Sizes.full(made.graph))
            assert features == pytest.approx(own, rel=1e-9)


def test_latency_under_probabilities_is_its_expectation(session: LatencySession) -> None:
    graph, term = session.graph, session.term
    random = np.random.default_rng(0)
    weights = torch.ones(graph.n_units, dtype=torch.float64)
    for choice in graph.choices:
        weights[torch.from_numpy(choice.units)] = torch.from_numpy(random.dirichlet(np.ones(len(choice))))
    expected = 0.0
    for index in np.ndindex(*(len(choice) for choice in graph.choices)):
        share = np.prod([float(weights[c.units[i]]) for c, i in zip(graph.choices, index, strict=True)])
        expected += share * float(term(hard_sizes(graph, picked(graph, *index))))
    assert float(term(Sizes(graph, weights))) == pytest.approx(expected, rel=1e-9)


def test_gradients_are_those_of_small_changes(session: LatencySession) -> None:
    graph, term = session.graph, session.term
    weights = torch.ones(graph.n_units, dtype=torch.float64)
    units = np.concatenate([choice.units for choice in graph.choices])
    weights[torch.from_numpy(units)] = torch.rand(len(units), dtype=torch.float64) * 0.4 + 0.1
    leaf = weights.clone().requires_grad_()
    term(Sizes(graph, leaf)).backward()
    assert leaf.grad is not None
    for unit in units.tolist():
        step = torch.zeros_like(weights)
        step[unit] = 1e-4
        slope = (float(term(Sizes(graph, weights + step))) - float(term(Sizes(graph, weights - step)))) / 2e-4
        assert float(leaf.grad[unit]) == pytest.approx(slope, rel=1e-6)


def test_predictions_are_calibrated_with_other_alternatives(session: LatencySession) -> None:
    graph = session.graph
    found = random_choices(graph, 8, decides=DECIDES)
    chosen = [tuple(choice.chosen(subnet.units) for choice in graph.choices) for subnet in found]
    assert len(set(chosen)) >= 5
    width = np.concatenate([group.units for group in graph.groups if group.ranked])
    assert all(subnet.units[width].all() for subnet in found)
    assert session.prediction.held_out["mean_error"] < 0.02
    assert session.subnets.exported > 0
    before = session.subnets.exported
    paths = [session.write(found[0].units, None) for _ in range(2)]
    assert paths[0] == paths[1]
    assert session.subnets.exported <= before + 1


@pytest.mark.parametrize(
    "asked_for", [{"latency": "70%"}, {"latency": "80%", "flops": "75%"}, {"latency": "130%"}, {"flops": "150%"}]
)
def test_budgets_are_met_by_other_alternatives_alone(asked_for: dict[str, str], folder: Path) -> None:
    target = simulated(folder) if "latency" in asked_for else None
    result = compressor.compress(network(), example(), asked_for, search="picking", target=target)
    assert all(budget.met for budget in result.report.budgets)
    assert {edit.kind for edit in result.architecture.edits} <= {"replace_convolution", "slice"}
    before, after = network(), result.model
    for name, module in before.named_modules():
        if isinstance(module, nn.Conv2d):
            other: Any = after.get_submodule(name)
            assert (other.in_channels, other.out_channels) == (module.in_channels, module.out_channels)
    if "latency" in asked_for:
        device = SimulatedDevice()
        was, now = (device.load(m, example(), threads=1).measure(1).latency_ms[0] for m in (before, after))
        share = float(asked_for["latency"][:-1]) / 100
        assert now <= share * was * (1 + 1e-9)
    if any(float(budget[:-1]) > 100 for budget in asked_for.values()):
        assert sum(p.numel() for p in after.parameters()) > sum(p.numel() for p in before.parameters())


@pytest.mark.parametrize("error", [0.8, 1.3])
def test_alternatives_change_until_the_budget_holds_on_the_device(
    error: float, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Predictions that are off are corrected by cheaper alternatives, or by better ones where there is room."""
    device = SimulatedDevice()
    was = device.load(network(), example(), threads=1).measure(1).latency_ms[0]

    def run() -> float:
        asked_for = {"latency": f"{0.8 * was}ms"}
        result = compressor.compress(network(), example(), asked_for, search="picking", target=simulated(folder))
        assert result.report.budgets[0].met
        return device.load(result.model, example(), threads=1).measure(1).latency_ms[0]

    right = run()

    def wrong(term: Latency, *how: Any, **more: Any) -> Any:
        made = calibrate(term, *how, **more)
        term.factor = error
        return made

    monkeypatch.setattr("compressor.latency.target.calibrate", wrong)
    assert run() >= 0.95 * right


def test_a_network_without_anything_to_decide_on_is_refused() -> None:
    dense = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 3)).eval()
    with pytest.raises(UnsupportedModelError, match="picking decides on taps"):
        compressor.compress(dense, torch.randn(1, 6), {"flops": "90%"}, search="picking")


def test_nothing_but_what_is_decided_on_changes(session: LatencySession) -> None:
    graph = session.graph
    projector = Projector(graph, [], decides=DECIDES)
    assert not projector.removable.any()
    assert projector.only_choices
    for units in (projector.start, projector.minimal(np.zeros(graph.n_units))):
        assert all(units[group.units].all() for group in graph.groups if group.ranked)
    assert picking.METHOD.improves


def test_operators_follow_the_alternatives() -> None:
    _, graph = traced()
    choice = graph.choices[0]
    of = [run for run in runs(graph) if run.unit is not None and run.unit in choice.units]
    assert [run.operator.kernel for run in of] == [(k, k) for k, _ in KERNELS]
    assert signature_of(of[choice.current].operator) == signature_of(graph.operators[of[0].of])


def site(**changes: Any) -> ChoiceSite:
    at = [{}, {"kernel": (5, 5), "padding": (2, 2)}]
    return ChoiceSite("0", [Alternative("3x3"), Alternative("5x5")], operators={"0": at} | changes)


WRONG = [
    ({"0": [{"kernel": (5, 5)}, {}]}, "has the kernel .5, 5. now"),
    ({"0": [{}, {"kernel": (5,)}]}, "gives the operators of 0 the kernel"),
    ({"0": [{}, {"kernel": (5, 0)}]}, "gives the operators of 0 the kernel"),
    ({"0": [{}, {"channels_in": 3}]}, "changes the channels_in"),
    ({"0": [{}]}, "says of 1 alternatives"),
    ({"nowhere": [{}, {}]}, "which runs none"),
]


@pytest.mark.parametrize(("operators", "said"), WRONG, ids=[said for _, said in WRONG])
def test_a_finder_s_mistake_is_named(operators: Any, said: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tests.toys.kernels.find", lambda model, graph: [site(**operators)])
    model = network()
    with pytest.raises(UnsupportedModelError, match=said):
        add_choices(model, capture(model, example()), ["taps"])
    monkeypatch.setattr("tests.toys.kernels.find", lambda model, graph: [site(), site()])
    with pytest.raises(UnsupportedModelError, match="another choice does, too"):
        add_choices(model, capture(model, example()), ["taps"])


def test_the_finder_of_these_tests_finds_the_convolutions_of_stride_one() -> None:
    model = network()
    assert [each.name for each in find(model, capture(model, example()))] == ["0", "1.a", "3.a"]


@pytest.mark.slow
def test_channels_blocks_and_alternatives_meet_a_latency_budget_together(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(METHODS._known(), "thrifty", "tests.toys.method:METHOD")
    monkeypatch.setattr(ThriftyConfig, "decides", frozenset({"width", "depth", "taps"}))
    options = {"love": 1e6}
    result = compressor.compress(
        network(), example(), {"latency": "60%"}, search="thrifty", options=options, target=simulated(folder)
    )
    (budget,) = result.report.budgets
    assert budget.met
    assert budget.reached >= 0.9 * budget.limit
