"""Networks timed in turn: what one load makes faster or slower must not decide what a network takes."""

from __future__ import annotations

import itertools
import random
from pathlib import Path
from statistics import fmean
from typing import Any

import pytest

from profilers import in_turn, side_by_side
from profilers.base import Availability, RunnerInfo, Samples
from profilers.in_turn import Limit, time_networks, time_pair
from profilers.side_by_side import time_in_turn


class FakeClock:
    """Seconds that pass only where something says so."""

    def __init__(self) -> None:
        self.now = 0.0

    def perf_counter(self) -> float:
        return self.now


class FakeRunner:
    def __init__(self, clock: FakeClock, ms: float, closed: list[int]) -> None:
        self.info = RunnerInfo("fake", "1", "fake", "float32", 2, 1)
        self._clock, self._ms, self._closed = clock, ms, closed

    def run(self) -> None:
        self._clock.now += self._ms / 1e3

    def measure(self, runs: int) -> Samples:
        self._clock.now += runs * self._ms / 1e3
        return Samples([self._ms] * runs)

    def close(self) -> None:
        self._closed.append(1)


class FakeRuntime:
    """A file's name says its milliseconds; every load makes it faster or slower by a share."""

    name = "fake"

    def __init__(self, clock: FakeClock, load_s: float, shares: Any) -> None:
        self._clock, self._load_s, self._shares = clock, load_s, shares
        self.loads: list[str] = []
        self.closed: list[int] = []

    def is_available(self) -> Availability:
        return Availability(True)

    def load(self, model: Any, example_inputs: Any = None, **_: Any) -> Any:
        self._clock.now += self._load_s
        self.loads.append(Path(model).stem)
        return FakeRunner(self._clock, float(Path(model).stem) * (1 + next(self._shares)), self.closed)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> FakeClock:
    found = FakeClock()
    monkeypatch.setattr(in_turn, "time", found)
    monkeypatch.setattr(side_by_side, "time", found)
    return found


def noise(spread: float, seed: int = 0) -> Any:
    draw = random.Random(seed)
    return (draw.uniform(-spread, spread) for _ in itertools.count())


PLACE = {"threads": 2, "batch": 1}


@pytest.mark.parametrize("seed", range(3))
def test_a_pair_is_loaded_anew_until_it_is_known(clock: FakeClock, seed: int) -> None:
    runtime = FakeRuntime(clock, 0.05, noise(0.06, seed))
    found = time_pair(runtime, Path("4.onnx"), Path("2.onnx"), **PLACE, limit=Limit(0.5, relative=True))
    assert found.ratio == pytest.approx(0.5, rel=0.015)
    assert abs(found.ratio / 0.5 - 1) <= 2 * found.margin
    assert runtime.loads.count("2") > 50
    assert len(runtime.closed) == len(runtime.loads)


def test_what_is_known_at_once_takes_few_loads(clock: FakeClock) -> None:
    runtime = FakeRuntime(clock, 0.05, noise(0.0))
    found = time_pair(runtime, Path("4.onnx"), Path("3.onnx"), **PLACE)
    assert (found.original_ms, found.ratio, found.margin) == (4.0, 0.75, 0.0)
    assert runtime.loads.count("3") == 3


def test_a_network_far_from_its_limit_takes_few_loads(clock: FakeClock) -> None:
    runtime = FakeRuntime(clock, 0.05, noise(0.03))
    time_pair(runtime, Path("4.onnx"), Path("3.onnx"), **PLACE, limit=Limit(0.5, relative=True))
    assert runtime.loads.count("3") < 15


@pytest.mark.parametrize(("share", "most"), [(0.52, 80), (0.5055, 160), (0.49, 120), (0.5005, 450)])
def test_it_is_timed_until_it_is_clear_on_which_side_of_its_limit_it_is(
    clock: FakeClock, share: float, most: int
) -> None:
    runtime = FakeRuntime(clock, 0.05, noise(0.03))
    found = time_pair(
        runtime, Path("4.onnx"), Path("2.onnx"), **PLACE, limit=Limit(share, relative=True, slack=0.02), sure=0.001
    )
    least = abs(found.ratio / share - 1), abs(found.ratio / share - 0.98)
    assert runtime.loads.count("2") <= most
    assert min(least) > 1.4 * found.margin or clock.now > 45


def test_an_engine_that_takes_long_to_build_is_built_once(clock: FakeClock) -> None:
    runtime = FakeRuntime(clock, 20.0, noise(0.0))
    found = time_pair(runtime, Path("4.onnx"), Path("3.onnx"), **PLACE)
    assert found.ratio == 0.75
    assert runtime.loads == ["4", "3"]


def test_a_device_that_takes_no_time_ends(clock: FakeClock) -> None:
    """A simulated device does not wait: its clock stands still."""
    clock.perf_counter = lambda: 0.0  # type: ignore[method-assign]
    found = time_pair(FakeRuntime(clock, 0.0, noise(0.0)), Path("4.onnx"), Path("2.onnx"), **PLACE)
    assert found.ratio == 0.5


def test_time_is_up(clock: FakeClock) -> None:
    runtime = FakeRuntime(clock, 0.05, noise(0.3))
    found = time_pair(runtime, Path("4.onnx"), Path("2.onnx"), **PLACE, seconds=5.0)
    assert clock.now < 7
    assert found.margin > 0.004


def test_networks_are_loaded_anew_in_every_round(clock: FakeClock) -> None:
    runtime = FakeRuntime(clock, 0.05, noise(0.06))
    paths = {name: Path(f"{name}.onnx") for name in ("2", "3", "5")}
    found = time_networks(runtime, paths, Path("4.onnx"), **PLACE, slower=lambda: 1.0, rounds=10)
    assert found.reference_ms == pytest.approx(4.0, rel=0.03)
    assert fmean(abs(ms / float(name) - 1) for name, ms in found.networks_ms.items()) < 0.03
    assert runtime.loads.count("3") >= 10
    assert len(runtime.closed) == len(runtime.loads)


def test_engines_of_networks_are_built_once(clock: FakeClock) -> None:
    runtime = FakeRuntime(clock, 20.0, noise(0.0))
    time_networks(runtime, {"n": Path("2.onnx")}, Path("4.onnx"), **PLACE, slower=lambda: 1.0)
    assert sorted(runtime.loads) == ["2", "4"]


@pytest.mark.parametrize("seed", range(3))
def test_what_is_reported_is_loaded_anew_too(clock: FakeClock, seed: int) -> None:
    runtime = FakeRuntime(clock, 0.05, noise(0.06, seed))
    seen: list[float] = []
    models = {"original": (Path("4.onnx"), None), "small": (Path("2.onnx"), None)}
    found = time_in_turn(runtime, models, seconds=10.0, progress=seen.append)
    ratio = found.ratios["small"]
    assert 0.45 < ratio.low <= ratio.value <= ratio.high < 0.55
    assert ratio.high - ratio.low > 0.005, "one load would have called it certain"
    assert ratio.low <= 0.5 <= ratio.high
    assert runtime.loads.count("4") == runtime.loads.count("2") == ratio.rounds >= 9
    assert len(runtime.closed) == len(runtime.loads)
    assert seen == sorted(seen)
    assert seen[-1] == pytest.approx(1.0, abs=0.05)
    assert found.timings["small"].repeats == len(found.samples["small"].latency_ms)


def test_a_module_that_is_exported_first_is_loaded_once(clock: FakeClock) -> None:
    runtime = FakeRuntime(clock, 5.0, noise(0.0))
    found = time_in_turn(runtime, {"a": (Path("4.onnx"), None), "b": (Path("2.onnx"), None)}, seconds=2.0)
    assert runtime.loads == ["4", "2"]
    assert found.ratios["b"].value == 0.5


class ThrottledRuntime(FakeRuntime):
    """For two of every seven seconds the device is slowed down, larger networks (4 and more) less than others."""

    def load(self, model: Any, example_inputs: Any = None, **more: Any) -> Any:
        runner = super().load(model, example_inputs, **more)
        ms = float(Path(model).stem)
        clock = self._clock

        def measure(runs: int) -> Samples:
            slow = 1.0 if self.slower() == 1.0 else 1.7 if ms >= 4 else 1.95
            clock.now += runs * runner._ms * slow / 1e3
            return Samples([runner._ms * slow] * runs)

        runner.measure = measure
        return runner

    def slower(self) -> float:
        """As a reference tells."""
        return 1.0 if self._clock.now % 7 < 5 else 1.5


@pytest.mark.parametrize("began", [0.0, 5.0, 6.5])
def test_a_pair_is_compared_where_nothing_slows_it_down(clock: FakeClock, began: float) -> None:
    clock.now = began
    runtime = ThrottledRuntime(clock, 0.05, noise(0.02))
    limit = Limit(0.5, relative=True)
    found = time_pair(runtime, Path("4.onnx"), Path("2.onnx"), **PLACE, limit=limit, slower=runtime.slower)
    assert found.ratio == pytest.approx(0.5, rel=0.01)
    assert found.original_ms == pytest.approx(4.0, rel=0.02)


@pytest.mark.parametrize("load_s", [0.05, 20.0])
@pytest.mark.parametrize("began", [0.0, 4.0, 5.0])
def test_networks_are_compared_where_nothing_slows_them_down(clock: FakeClock, load_s: float, began: float) -> None:
    clock.now = began
    runtime = ThrottledRuntime(clock, load_s, noise(0.0))
    paths = {str(name): Path(f"{name}.onnx") for name in (2, 3, 5, 10, 60)}
    found = time_networks(runtime, paths, Path("4.onnx"), **PLACE, slower=runtime.slower)
    assert found.reference_ms == 4.0
    for name, ms in found.networks_ms.items():
        assert ms == pytest.approx(float(name), rel=0.01)


@pytest.mark.parametrize("load_s", [0.05, 20.0])
def test_what_is_reported_is_compared_where_nothing_slows_it_down(clock: FakeClock, load_s: float) -> None:
    runtime = ThrottledRuntime(clock, load_s, noise(0.0))
    models = {"original": (Path("4.onnx"), None), "small": (Path("2.onnx"), None)}
    found = time_in_turn(runtime, models, seconds=20.0)
    assert found.ratios["small"].value == pytest.approx(0.5, rel=0.01)
    assert found.timings["small"].p95_ms > 3, "single times are told as they were"


def test_a_device_that_is_slow_for_good_is_timed_all_the_same(clock: FakeClock) -> None:
    """It is quick once, and never again."""
    runtime = FakeRuntime(clock, 0.05, iter([0.0, 0.0] + [0.7, 0.95] * 10_000))
    found = time_pair(runtime, Path("4.onnx"), Path("2.onnx"), **PLACE)
    assert found.ratio == pytest.approx(0.5 * 1.95 / 1.7, rel=0.01)
