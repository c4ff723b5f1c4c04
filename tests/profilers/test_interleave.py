from __future__ import annotations

import json

import pytest
import torch
from torch import nn

from profilers.base import Runner, RunnerInfo, Samples
from profilers.errors import ProfilerUsageError
from profilers.interleave import interleave
from profilers.runtimes.simulated import SimulatedDevice


class Scripted:
    """Reports latencies from a function of the call number and notes the order of calls."""

    def __init__(self, name: str, order: list[str], latency_ms: float) -> None:
        self.name, self.order, self.latency_ms = name, order, latency_ms

    @property
    def info(self) -> RunnerInfo:
        return RunnerInfo("scripted", "1", "none", "fp32", 1, 1)

    def run(self) -> None: ...

    def measure(self, runs: int) -> Samples:
        self.order.append(self.name)
        return Samples([self.latency_ms] * runs)

    def close(self) -> None: ...


def networks(device: SimulatedDevice) -> dict[str, Runner]:
    wide, narrow = nn.Conv2d(64, 64, 3), nn.Conv2d(64, 32, 3)
    x = torch.zeros(1, 64, 16, 16)
    return {"wide": device.load(wide, x), "narrow": device.load(narrow, x)}


def test_runs_in_turn_after_warming_up() -> None:
    order: list[str] = []
    runners = {name: Scripted(name, order, 10.0) for name in "AB"}
    result = interleave(runners, seconds=1.0, clock=lambda: 0.0)
    rounds = "".join(order[-2 * result.rounds :])
    assert rounds == "AB" * result.rounds
    assert result.rounds >= 5
    assert set(order[: -2 * result.rounds]) == {"A", "B"}
    assert result.baseline == "A"


def test_the_time_budget_bounds_the_work() -> None:
    for seconds in (0.5, 2.0):
        result = interleave({"A": Scripted("A", [], 10.0)}, seconds=seconds, clock=lambda: 0.0)
        assert seconds * 0.5 <= result.seconds <= seconds


def test_a_slow_network_gets_three_rounds_of_one_run() -> None:
    result = interleave({n: Scripted(n, [], 5000.0) for n in "AB"}, seconds=1.0, clock=lambda: 0.0)
    assert result.rounds == 3
    assert result.timings["A"].repeats == 3


def test_drift_of_the_device_does_not_move_the_ratio() -> None:
    true = SimulatedDevice()
    steady = interleave(networks(true), seconds=1.0, clock=lambda: 0.0)
    drifting = interleave(networks(SimulatedDevice(drift_per_s=2.0)), seconds=1.0, clock=lambda: 0.0)
    assert drifting.timings["wide"].median_ms > 1.3 * steady.timings["wide"].median_ms
    assert drifting.ratios["narrow"].value == pytest.approx(steady.ratios["narrow"].value, rel=0.02)
    assert drifting.ratios["narrow"].verdict == "faster"


def test_noise_widens_the_interval_and_is_named_when_too_much() -> None:
    quiet = interleave(networks(SimulatedDevice(noise=0.01)), seconds=1.0, clock=lambda: 0.0)
    assert quiet.noise is None
    loud = interleave(networks(SimulatedDevice(noise=0.6)), seconds=1.0, clock=lambda: 0.0)
    assert loud.noise is not None
    assert "too noisy" in loud.noise
    assert "%" in loud.noise
    width = {name: r.ratios["narrow"].high - r.ratios["narrow"].low for name, r in (("q", quiet), ("l", loud))}
    assert width["l"] > width["q"]
    assert quiet.ratios["narrow"].low <= 0.51


def test_same_seed_same_result() -> None:
    results = [interleave(networks(SimulatedDevice(noise=0.1)), seconds=1, clock=lambda: 0.0) for _ in range(2)]
    assert results[0].to_json() == results[1].to_json()


def test_result_is_json_and_progress_ends_near_one() -> None:
    seen: list[float] = []
    result = interleave(networks(SimulatedDevice()), seconds=0.5, clock=lambda: 0.0, progress=seen.append)
    found = json.loads(json.dumps(result.to_json()))
    assert found["baseline"] == "wide"
    assert found["ratios"]["narrow"]["verdict"] == "faster"
    assert seen == sorted(seen)
    assert 0.5 < seen[-1] <= 1.0


def test_nothing_to_time() -> None:
    with pytest.raises(ProfilerUsageError, match="nothing to time"):
        interleave({})
    with pytest.raises(ProfilerUsageError, match="above 0"):
        interleave({"A": Scripted("A", [], 1.0)}, seconds=0)
