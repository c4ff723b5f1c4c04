"""A table begun, or a network timed, while other work held the machine: nothing of that stays."""

from __future__ import annotations

import hashlib
import os
import threading
from pathlib import Path
from typing import Any

import pytest

from compressor.graph import capture
from compressor.latency.profile import Profiled, open_timer, profile
from compressor.latency.target import LatencySession, TargetSettings
from lut import LatencyTable, Measurement, Row, Signature
from lut.errors import InvalidKeyError
from profilers.base import Runner, RunnerInfo, Samples, WallClockRunner
from profilers.contention import Contention, waited_s
from profilers.layers.layer_timer import REFERENCE, LayerTimer
from profilers.reference import Reference
from profilers.runtimes.simulated import SimulatedDevice
from profilers.runtimes.simulated_work import Product
from profilers.stats import quiet_ms
from tests.latency.simulated_models import example, network, simulated

CONV = Signature("conv2d", (3, 3), (1, 1), (1, 1), (1, 1), spatial=(14, 14))


class Shared(SimulatedDevice):
    """A device that other work makes ``load`` times slower, large operators more than the small reference."""

    load_ = 1.0

    def tick(self, latency_ms: float) -> float:
        return super().tick(latency_ms * (self.load_ if latency_ms < 0.02 else self.load_**1.3))

    def load(self, model: Any, example_inputs: Any = None, **how: Any) -> Runner:
        return _Waiting(super().load(model, example_inputs, **how), self)


class _Waiting:
    def __init__(self, runner: Runner, device: Shared) -> None:
        self._runner, self._device = runner, device
        self.info, self.run, self.close = runner.info, runner.run, runner.close

    def measure(self, runs: int) -> Samples:
        samples = self._runner.measure(runs)
        samples.waiting = [1.0 - 1.0 / self._device.load_] * runs
        return samples


def settings(folder: Path, device: SimulatedDevice) -> TargetSettings:
    return simulated(folder, device)


@pytest.mark.parametrize("load", [1.5, 6.0])
def test_a_table_begun_under_load_comes_to_undisturbed_time(load: float, tmp_path: Path) -> None:
    graph, device = capture(network(), example()), Shared()

    def measured(name: str) -> tuple[Profiled, dict[Any, Measurement]]:
        with LatencyTable(tmp_path / name) as table, open_timer(device, table, threads=2) as timer:
            found = profile(graph, table, timer, max_points=8)
            return found, {row.place: row.measurement for row in table.rows() if row.signature != REFERENCE}

    device.load_ = load
    _, loaded = measured("busy")
    device.load_ = 1.0
    again, mended = measured("busy")
    third, _ = measured("busy")
    _, quiet = measured("quiet")
    assert {took.status for took in loaded.values()} == {"noisy"}
    assert again.measured >= 0.8 * len(loaded)
    assert third.measured == 0
    both = [place for place in mended if place in quiet and mended[place].status == "ok"]
    assert len(both) >= 0.6 * len(quiet)
    for place in both:
        assert mended[place].median_ms == pytest.approx(quiet[place].median_ms, rel=0.01)


def test_a_device_that_turns_out_faster_in_the_middle_of_a_profile(tmp_path: Path) -> None:
    """The load ends after a while: points taken before are taken again, in the same run."""
    graph, device = capture(network(), example()), Shared()
    device.load_ = 4.0
    measure, count = LayerTimer.measure, [0]

    class Timer(LayerTimer):
        def measure(self, signature: Signature, channels_in: int, channels_out: int) -> Measurement:
            count[0] += 1
            if count[0] == 10:
                device.load_ = 1.0
            return measure(self, signature, channels_in, channels_out)

    with LatencyTable(tmp_path / "t") as table, open_timer(device, table, threads=2) as timer:
        timer.__class__ = Timer
        found = profile(graph, table, timer, max_points=8)
        rows = table.rows(found.target)
        undisturbed = device.cost_ms(Product(32, 32, 28 * 28, 9))
        assert timer.reference_ms == pytest.approx(undisturbed, rel=0.01)
    assert {row.measurement.status for row in rows} == {"ok"}


def test_two_processes_agree_on_the_time_of_the_table(tmp_path: Path) -> None:
    """One sees the load end; what the other measures in the old time is not stored as if it were the new one."""
    graph, device = capture(network(), example()), Shared()
    device.load_ = 4.0
    with LatencyTable(tmp_path / "t") as table, LatencyTable(tmp_path / "t") as second:
        other = open_timer(device, table, threads=2)
        device.load_ = 1.0
        with open_timer(device, second, threads=2) as timer:
            undisturbed = timer.reference_ms
        found = profile(graph, table, other, max_points=6)
        assert other.reference_ms == undisturbed
        assert {row.measurement.status for row in table.rows(found.target)} == {"ok"}
        other.close()


def test_calibration_of_a_busy_machine_is_made_anew_when_it_is_quiet(tmp_path: Path) -> None:
    model, device = network(), Shared()
    graph = capture(model, example())
    sessions = []
    for load in (6.0, 6.0, 1.0, 1.0):
        device.load_ = load
        session = LatencySession(model, graph, example(), settings(tmp_path, device))
        sessions.append((session.original_ms, float(session.term.original)))
        took = quiet_ms(device.load(session.subnets.original, threads=2).measure(5))
        session.close()
    assert sessions[1][0] == pytest.approx(sessions[0][0], rel=0.1)
    quiet = sessions[2][0]
    assert sessions[3][0] == quiet
    assert quiet == pytest.approx(took, rel=0.02)
    assert sessions[2][1] == pytest.approx(quiet, rel=0.05)


def test_operators_without_time_are_told_from_refused_ones(tmp_path: Path) -> None:
    model, graph = network(), capture(network(), example())
    wanted = TargetSettings(
        SimulatedDevice(), lut=tmp_path / "t", threads=1, subnets=6, max_points=6, profile_seconds=1e-9
    )
    session = LatencySession(model, graph, example(), wanted)
    session.close()
    assert session.prediction.unmeasured
    assert not session.prediction.estimated
    said = " ".join(session.prediction.warnings)
    assert "not measured in the time given" in said
    assert "would not run" not in said


def test_predictions_stand_in_the_time_of_the_measurements_beside_them(tmp_path: Path) -> None:
    """Three times as slow as undisturbed all the while: what was predicted and what was measured go together."""
    import compressor

    class Slower(SimulatedDevice):
        slow = 1.0

        def tick(self, latency_ms: float) -> float:
            return super().tick(latency_ms * self.slow)

    device = Slower()
    model, wanted = network(), simulated(tmp_path, device)
    session = LatencySession(model, capture(model, example()), example(), wanted)
    session.close()
    device.slow = 3.0
    result = compressor.compress(model, example(), {"latency": "60%"}, target=wanted)
    found = result.report.latency_prediction
    assert found is not None
    first = found.rounds[0]
    assert first["original_ms"] == pytest.approx(3.0 * session.original_ms, rel=0.02)
    assert first["predicted_ms"] == pytest.approx(first["measured_ms"], rel=0.25)
    assert found.rounds[-1]["used"] <= 1.0


# The table ----------------------------------------------------------------------------------------------------------


def anchored(table: LatencyTable, reference_ms: float) -> Row:
    device = SimulatedDevice()
    with LayerTimer(device, threads=1) as timer:
        target = timer.target
    row = Row(target, REFERENCE, 32, 32, Measurement(reference_ms))
    return table.anchor(row, slow=1.3)


@pytest.mark.parametrize(("now", "status"), [(3.9, "ok"), (1.0, "noisy")])
def test_a_faster_anchor_scales_the_points(now: float, status: str, tmp_path: Path) -> None:
    with LatencyTable(tmp_path / "t") as table:
        first = anchored(table, 4.0)
        table.put(first.target, CONV, (8, 8), Measurement(2.0))
        table.put(first.target, CONV, (8, 16), Measurement.refused("no"))
        assert anchored(table, 5.0).measurement.median_ms == 4.0
        assert anchored(table, now).measurement.median_ms == now
        points = table.points(first.target, CONV)
        reference = table.get(first.target, REFERENCE, (32, 32))
    assert points[8, 8].median_ms == pytest.approx(2.0 * now / 4.0)
    assert points[8, 8].status == status
    assert points[8, 16].status == "refused"
    assert reference is not None
    assert (reference.median_ms, reference.status) == (now, "ok")


def test_a_row_of_another_time_is_not_stored(tmp_path: Path) -> None:
    with LatencyTable(tmp_path / "t") as table:
        old = anchored(table, 4.0)
        new = anchored(table, 1.0)
        row = Row(old.target, CONV, 8, 8, Measurement(2.0))
        assert not table.put_anchored(row, old)
        assert table.points(old.target, CONV) == {}
        assert table.put_anchored(row, new)
        with pytest.raises(InvalidKeyError, match="anchor"):
            table.anchor(old._replace(measurement=Measurement.refused("no")), slow=1.3)


# The machine --------------------------------------------------------------------------------------------------------


def test_waiting_for_a_core_is_counted() -> None:
    """Four threads that want one core wait three quarters of the time."""
    if not hasattr(os, "sched_setaffinity") or waited_s() == 0.0:
        pytest.skip("this system does not count waiting")
    before, data, done = os.sched_getaffinity(0), bytes(1 << 22), threading.Barrier(5)

    def work() -> None:
        for _ in range(10):
            hashlib.sha256(data)  # lets go of the interpreter's lock
        done.wait()
        done.wait()  # a thread that ends takes its count along

    os.sched_setaffinity(0, {min(before)})
    try:
        threads = [threading.Thread(target=work) for _ in range(4)]
        with Contention(4) as contention:
            for thread in threads:
                thread.start()
            done.wait()
        done.wait()
    finally:
        os.sched_setaffinity(0, before)
    assert contention.share > 0.4


def test_time_that_was_waited_is_left_out_where_no_run_was_spared() -> None:
    assert quiet_ms(Samples([60.0] * 4, waiting=[0.75] * 4)) == pytest.approx(15.0)
    assert quiet_ms(Samples([60.0] * 4, waiting=[0.01] * 4)) == 60.0
    assert quiet_ms(Samples([60.0] * 4, cpu_ms=[14.0] * 4, waiting=[0.75] * 4)) == 14.0
    assert quiet_ms(Samples([0.5] * 4, waiting=[0.75] * 4)) == 0.5  # too short to tell whose waiting it was


def test_samples_of_a_cpu_runtime_tell_how_much_was_waited() -> None:
    info = RunnerInfo("x", "1", "cpu", "fp32", 2, 1)
    samples = WallClockRunner(info, lambda: None).measure(5)
    assert len(samples.waiting) == 5
    assert 0.0 <= samples.waited < 1.0
    assert len(samples.after(2).waiting) == 3


def test_the_reference_is_what_it_takes_in_the_gaps() -> None:
    """Nine looks of ten are disturbed."""

    class Gaps:
        looks = 0

        def measure(self, runs: int) -> Samples:
            self.looks += 1
            return Samples([1.0 if self.looks % 10 == 0 else 3.0 + self.looks % 7] * runs)

    reference = Reference(Gaps())  # type: ignore[arg-type]
    assert reference.undisturbed_ms == 1.0
    assert reference.drift() > 2.0
