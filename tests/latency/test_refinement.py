"""The latency budget holds on the device: rounds of deciding and timing, on made-up devices and the simulated one."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import compressor
from compressor.budget import parse_budget, parse_budgets
from compressor.errors import UnreachableBudgetError
from compressor.graph import capture
from compressor.latency.enforce import finer
from compressor.latency.refinement import SLACK, RefinementLog, hold
from compressor.latency.subnets import Subnet, Subnets
from compressor.latency.target import LatencySession, OnDevice
from compressor.pipeline.settings import Settings
from compressor.pipeline.stages import Pipeline
from compressor.search.result import SearchResult
from compressor.storage.job import Job
from profilers.runtimes.simulated import SimulatedDevice
from tests.latency.simulated_models import example, network, simulated


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One table for all: what it knows is not measured again."""
    return tmp_path_factory.mktemp("lut")


class Line:
    """Networks that are numbers: what is predicted for them, in ms. The original is predicted and takes 10 ms."""

    def __init__(self, takes: Callable[[float], float], step: float = 0.0, exported: float = 1.0) -> None:
        self.takes, self.step, self.exported, self.confirmed = takes, step, exported, 0

    def result(self, predicted_ms: float) -> SearchResult:
        return SearchResult(np.ones(1, dtype=np.bool_), torch.tensor([predicted_ms], dtype=torch.float64), [])

    def predict(self, network: SearchResult) -> float:
        return float(network.priority[0])

    def measure(self, network: SearchResult, factor: float = 1.0) -> OnDevice:
        took = self.takes(self.predict(network)) * factor
        return OnDevice(10.0, took, took / 10.0, 0.002)

    def decide(self, goal_ms: float, known: list[SearchResult]) -> SearchResult | None:
        found = goal_ms // self.step * self.step if self.step else goal_ms
        return None if any(abs(self.predict(n) - found) < 1e-9 for n in known) else self.result(found)

    def confirm(self, network: SearchResult) -> tuple[SearchResult, OnDevice]:
        self.confirmed += 1
        return network, self.measure(network, self.exported)

    def hold(self, asked: str = "50%", start: float = 5.0) -> RefinementLog:
        budget = parse_budget("latency", asked)
        return hold(budget, self.result(start), self.predict, self.measure, self.decide, self.confirm)


@pytest.mark.parametrize("error", [0.7, 0.9, 0.97, 1.0, 1.04, 1.2, 1.5])
@pytest.mark.parametrize("asked", ["50%", "5ms"])
def test_a_prediction_that_is_off_is_corrected_in_few_rounds(error: float, asked: str) -> None:
    held = Line(lambda ms: error * ms).hold(asked)
    assert held.best is not None
    assert 1 - SLACK <= held.rounds[held.best].used <= 1
    assert held.rounds[held.best].exported, "what is kept was timed as the user gets it"
    assert len(held.rounds) <= 4


def test_an_overhead_that_was_not_predicted_is_found_out() -> None:
    held = Line(lambda ms: 0.9 * ms + 1.5).hold()
    assert held.best is not None
    assert 1 - SLACK <= held.rounds[held.best].used <= 1


def test_a_grid_without_a_network_close_enough_gives_the_closest_below() -> None:
    held = Line(lambda ms: ms, step=0.7).hold()
    assert held.best is not None
    assert held.rounds[held.best].measured_ms == pytest.approx(4.9)
    assert held.rounds[held.best].exported


@pytest.mark.parametrize(("takes", "kept"), [([5.3, 5.6, 5.05, 3.2], 3.0), ([5.3, 5.6, 5.2, 5.1], None)])
def test_a_goal_that_leads_to_what_was_timed_is_lowered(takes: list[float], kept: float | None) -> None:
    """Few networks, as of alternatives, and a device that does not order them as predicted."""
    predicted = [5.0, 4.5, 4.0, 3.0]
    line = Line(lambda ms: takes[predicted.index(ms)])

    def decide(goal_ms: float, known: list[SearchResult]) -> SearchResult | None:
        found = next((line.result(ms) for ms in predicted if ms <= goal_ms), None)
        return None if found is None or any(line.predict(n) == line.predict(found) for n in known) else found

    held = hold(parse_budget("latency", "50%"), line.result(5.0), line.predict, line.measure, decide, line.confirm)
    assert len({line.predict(network) for network in held.networks}) == len(predicted)
    assert held.best is None if kept is None else line.predict(held.networks[held.kept]) == kept


def test_an_export_that_is_slower_than_the_file_that_was_timed_is_not_kept() -> None:
    line = Line(lambda ms: ms, exported=1.03)
    held = line.hold()
    assert held.best is not None
    assert held.rounds[held.best].exported
    assert held.rounds[held.best].used <= 1
    assert line.confirmed >= 2


def test_doubt_counts_as_latency() -> None:
    def doubtful(network: SearchResult) -> OnDevice:
        return OnDevice(10.0, 4.98, 0.498, 0.006)

    line = Line(lambda ms: ms)
    held = hold(parse_budget("latency", "50%"), line.result(5.0), line.predict, doubtful, lambda *_: None, line.confirm)
    assert held.best is None
    assert "does not hold" in held.failure("there")
    assert held.noise() is None


def test_a_machine_too_noisy_for_the_budget_says_by_how_much() -> None:
    def noisy(network: SearchResult) -> OnDevice:
        return OnDevice(10.0, 4.9, 0.49, 0.034)

    line = Line(lambda ms: ms)
    held = hold(
        parse_budget("latency", "50%"),
        line.result(5.0),
        line.predict,
        noisy,
        lambda *_: None,
        lambda n: (n, noisy(n)),
    )
    assert held.best is not None
    for said, place in ((held.noise(), "This machine"), (held.noise("jetson-1"), "jetson-1")):
        assert said is not None
        assert said.startswith(f"{place} is too noisy")
        assert "3.4%" in said


def test_nothing_under_the_budget_is_the_fastest_and_says_so() -> None:
    held = Line(lambda ms: max(ms, 6.0)).hold()
    assert held.best is None
    assert not held.hopeless
    assert "6 ms" in held.failure("there")
    assert Line(lambda ms: 11.0).hold().hopeless


def test_finer_grids_end_at_single_channels() -> None:
    assert finer(8) == [8]
    assert finer({"a": 8, "b": 2}) == [{"a": 8, "b": 2}, {"a": 4, "b": 1}, {"a": 2, "b": 1}]


@pytest.mark.parametrize("asked", ["60%", pytest.param("0.4ms", marks=pytest.mark.slow)])
def test_the_budget_holds_on_the_device(asked: str, folder: Path) -> None:
    result = compressor.compress(network(), example(), {"latency": asked}, target=simulated(folder))
    (budget,) = result.report.budgets
    assert budget.met
    assert budget.reached >= 0.97 * budget.limit, "so small a network has few widths to choose from"
    device = SimulatedDevice()
    runners = [device.load(model, example(), threads=1) for model in (network(), result.model)]
    before, after = (runner.measure(1).latency_ms[0] for runner in runners)
    assert budget.reached == pytest.approx(after, rel=1e-6)
    assert budget.original == pytest.approx(before, rel=1e-6)
    assert result.report.latency_prediction is not None
    assert result.report.latency_prediction.rounds


@pytest.mark.slow
def test_several_budgets_hold_together(folder: Path) -> None:
    asked = {"latency": "70%", "params": "50%"}
    result = compressor.compress(network(), example(), asked, target=simulated(folder))
    assert [budget.met for budget in result.report.budgets] == [True, True]


def test_an_unreachable_budget_names_the_smallest_latency(folder: Path) -> None:
    with pytest.raises(UnreachableBudgetError, match="ms"):
        compressor.compress(network(), example(), {"latency": "0.001ms"}, target=simulated(folder))


@pytest.mark.slow
def test_if_nothing_is_faster_the_original_comes_back_and_says_why(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stubborn(self: LatencySession, *_: object, **__: object) -> OnDevice:
        return OnDevice(1.0, 1.1, 1.1)

    monkeypatch.setattr(LatencySession, "compare", stubborn)
    result = compressor.compress(network(), example(), {"latency": "60%"}, target=simulated(folder))
    assert any("No network faster" in warning for warning in result.report.warnings)
    assert sum(p.numel() for p in result.model.parameters()) == sum(p.numel() for p in network().parameters())


def pipeline(folder: Path, job: Job | None) -> Pipeline:
    settings = Settings(parse_budgets({"latency": "60%"}), search="oneshot", target=simulated(folder))
    return Pipeline(network(), example(), settings, job=job)


def test_a_job_that_was_killed_goes_on_from_what_was_timed(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = pipeline(folder, None)
    whole.run()
    compared = LatencySession.compare
    calls: list[Path] = []

    def dying(self: LatencySession, path: Path, *how: Any) -> OnDevice:
        calls.append(path)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return compared(self, path, *how)

    monkeypatch.setattr(LatencySession, "compare", dying)
    with Job.open(tmp_path / "job", {"is": "this"}) as job, pytest.raises(KeyboardInterrupt):
        pipeline(folder, job).run()
    monkeypatch.setattr("compressor.latency.target.profile", None)  # a target that was measured is not measured again
    with Job.open(tmp_path / "job", {"is": "this"}) as job:
        again = pipeline(folder, job)
        again.run()
    assert whole.held is not None
    assert again.held is not None
    assert len(calls) == len(whole.held.rounds) + 1
    assert np.array_equal(again.decision.units, whole.decision.units)
    with Job.open(tmp_path / "job", {"is": "this"}) as job:
        third = pipeline(folder, job)
        third.run()
    assert len(calls) == len(whole.held.rounds) + 1, "and what was timed is not timed again"
    assert np.array_equal(third.decision.units, whole.decision.units)


def test_networks_are_cut_from_one_file_and_not_exported_anew(folder: Path) -> None:
    model = network()
    graph = capture(model, example())
    session = LatencySession(model, graph, example(), simulated(folder))
    gates = np.ones(len(graph.blocks), dtype=np.bool_)
    gates[0] = False
    units = graph.all_units()
    units[graph.groups[-1].units[::2]] = False
    for kept in (None, gates):
        assert session.write(units, kept).is_file()
        assert session.write(graph.all_units(), kept).is_file()
    session.close()
    assert session.subnets.exported == 0


def test_equal_vectors_of_different_layers_are_cut_to_their_own_widths(tmp_path: Path) -> None:
    """A fresh network's normalisations are all ones and zeros, which exporters store once for all of a width."""
    model = nn.Sequential(
        nn.Conv2d(3, 16, 3), nn.ReLU(), nn.BatchNorm2d(16), nn.Conv2d(16, 16, 1), nn.ReLU(), nn.BatchNorm2d(16),
        nn.Conv2d(16, 4, 1),
    ).eval()  # fmt: skip
    before = {name: value.clone() for name, value in model.state_dict().items()}
    graph = capture(model, example())
    units = graph.all_units()
    units[graph.groups[0].units[:8]] = False
    units[graph.groups[1].units[:5]] = False
    subnets = Subnets(model, graph, example(), tmp_path)
    assert subnets.write(Subnet(units), "small").is_file()
    assert subnets.exported == 0
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


@pytest.mark.slow
def test_figs_under_a_latency_budget(folder: Path) -> None:
    torch.manual_seed(0)
    batches = [(torch.randn(8, 3, 12, 12), torch.randint(0, 10, (8,))) for _ in range(4)]
    result = compressor.compress(
        network(),
        example(),
        {"latency": "60%"},
        data=(batches, batches),
        search="figs",
        search_epochs=3,
        finetune_epochs=1,
        target=simulated(folder),
    )
    (budget,) = result.report.budgets
    assert budget.met
    assert budget.reached >= (1 - SLACK) * budget.limit


@pytest.mark.slow
def test_a_training_loop_of_ones_own_ends_under_a_latency_budget(folder: Path) -> None:
    model = network()
    session = compressor.prepare(model, example(), {"latency": "60%"}, total_steps=6, target=simulated(folder))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    for _ in range(6):
        optimizer.zero_grad()
        (model.train()(torch.randn(4, 3, 12, 12)).square().mean() + session.cost_loss()).backward()
        optimizer.step()
        session.step()
    small = session.finish()
    assert session.held is not None
    assert session.held.best is not None
    device = SimulatedDevice()
    before, after = (device.load(m.eval(), example(), threads=1).measure(1).latency_ms[0] for m in (network(), small))
    assert 0.97 * 0.6 * before <= after <= 0.6 * before


def test_a_loop_of_ones_own_needs_a_target_for_latency() -> None:
    with pytest.raises(compressor.errors.UsageError, match="target"):
        compressor.prepare(network(), example(), {"latency": "60%"}, total_steps=6)
