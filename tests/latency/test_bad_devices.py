"""Devices and tables that misbehave while a latency budget is held: said clearly, and nothing false is kept."""

from __future__ import annotations

import contextlib
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

import compressor
from compressor.graph import capture
from compressor.latency.profile import open_timer, profile
from compressor.latency.signatures import domains, signature_of
from compressor.latency.target import LatencySession
from exporters.errors import UnsupportedExportError
from lut import LatencyTable, Measurement, Signature
from lut.errors import DiskFullError
from profilers import cuda
from profilers.base import Runner, RunnerInfo
from profilers.cuda import CudaRunner
from profilers.errors import DeviceLostError, RefusedError
from profilers.layers.layer_timer import LayerTimer
from profilers.runtimes.simulated import SimulatedDevice
from tests.latency.simulated_models import example, network, simulated

WORKER = """
import sys
sys.path.insert(0, sys.argv[2])
from tests.latency.simulated_models import example, network
from compressor.graph import capture
from compressor.latency.profile import open_timer, profile
from lut import LatencyTable
from profilers.simulated import SimulatedDevice
with LatencyTable(sys.argv[1]) as table, open_timer(SimulatedDevice(), table, threads=1) as timer:
    profile(capture(network(), example()), table, timer, max_points=8)
"""


class Vanishing(SimulatedDevice):
    """A device that is gone after ``left`` loads: it then refuses everything, as a runtime without its GPU does."""

    def __init__(self, left: int) -> None:
        super().__init__()
        self.left = left

    def load(self, model: Any, example_inputs: Any = None, **how: Any) -> Runner:
        self.left -= 1
        if self.left < 0:
            raise RefusedError("no device")
        return _Vanishing(super().load(model, example_inputs, **how), self)


class _Vanishing:
    def __init__(self, runner: Runner, device: Vanishing) -> None:
        self._runner, self._device = runner, device
        self.info, self.run, self.close = runner.info, runner.run, runner.close

    def measure(self, runs: int) -> Any:
        if self._device.left < 0:
            raise DeviceLostError("The device stopped answering.")
        return self._runner.measure(runs)


def test_a_device_that_disappears_is_named_and_refuses_nothing(tmp_path: Path) -> None:
    graph = capture(network(), example())
    with LatencyTable(tmp_path / "t") as table:
        with open_timer(Vanishing(20), table, threads=1) as timer, pytest.raises(DeviceLostError):
            profile(graph, table, timer)
        target = table.targets()[0]
        stored = [row.measurement for row in table.rows(target)]
        assert len(stored) >= 15
        assert {took.status for took in stored} == {"ok"}
        with open_timer(SimulatedDevice(), table, threads=1) as timer:
            again = profile(graph, table, timer)
    assert again.finished
    assert again.known >= 15
    assert not again.refused


@pytest.mark.parametrize(
    ("error", "lost"),
    [
        (RuntimeError("CUDA error: unspecified launch failure"), True),
        (Exception("[ONNXRuntimeError] : 1 : FAIL : CUDA failure 719"), True),
        (UnsupportedExportError("The engine could not be run: device not ready"), True),
        (ValueError("something else"), False),
    ],
)
def test_a_gpu_that_is_lost_in_a_run(error: Exception, lost: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    class Idle:
        def record(self, stream: object) -> None: ...

        def synchronize(self) -> None: ...

    def failing() -> None:
        raise error

    monkeypatch.setattr(cuda, "_event", Idle)
    monkeypatch.setattr(torch.cuda, "stream", lambda stream: contextlib.nullcontext())
    runner = CudaRunner(RunnerInfo("a-gpu", "1", "GPU", "fp32", 0, 1), Idle(), failing)  # type: ignore[arg-type]
    with pytest.raises(DeviceLostError if lost else ValueError, match="a-gpu" if lost else "something else"):
        runner.measure(2)


def test_a_refused_signature_is_estimated_and_the_report_names_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    graph = capture(network(), example())
    strided = next(signature_of(o) for o in graph.operators if o.stride == (2, 2))
    measure = LayerTimer.measure

    def refusing(self: LayerTimer, signature: Signature, channels_in: int, channels_out: int) -> Measurement:
        if signature == strided:
            return Measurement.refused("no kernel for this")
        return measure(self, signature, channels_in, channels_out)

    monkeypatch.setattr(LayerTimer, "measure", refusing)
    result = compressor.compress(network(), example(), {"latency": "70%"}, target=simulated(tmp_path))
    (budget,) = result.report.budgets
    assert budget.met, "whole networks are timed, whatever single operators do"
    assert result.report.latency_prediction is not None
    assert result.report.latency_prediction.estimated == [strided.label]
    assert any(strided.label in warning for warning in result.report.warnings)


def test_a_damaged_table_is_set_aside_and_the_report_says_where(tmp_path: Path) -> None:
    settings = simulated(tmp_path)
    path = Path(str(settings.lut))
    with LatencyTable(path) as table, open_timer(SimulatedDevice(), table, threads=1) as timer:
        profile(capture(network(), example()), table, timer, max_points=6)
    content = bytearray(path.read_bytes())
    content[100:6000] = b"\xff" * 5900
    path.write_bytes(bytes(content))
    session = LatencySession(network(), capture(network(), example()), example(), settings)
    session.close()
    (line,) = session.prediction.warnings
    (aside,) = tmp_path.glob("*.corrupt-*")
    assert str(aside) in line
    assert aside.read_bytes() == bytes(content), "nothing of it is lost"
    assert session.prediction.measured > 0


def test_a_machine_too_noisy_says_so_in_the_report_with_its_spread(tmp_path: Path) -> None:
    session = LatencySession(
        network(), capture(network(), example()), example(), simulated(tmp_path, SimulatedDevice(noise=0.8))
    )
    session.close()
    assert any("too noisy" in line and "spread" in line for line in session.prediction.warnings)


def test_a_table_of_another_device_is_measured_anew(tmp_path: Path) -> None:
    class Other(SimulatedDevice):
        def load(self, model: Any, example_inputs: Any = None, **how: Any) -> Runner:
            runner = super().load(model, example_inputs, **how)
            runner._info = RunnerInfo(**{**vars(runner.info), "device": "another"})  # type: ignore[attr-defined]
            return runner

    graph = capture(network(), example())
    with LatencyTable(tmp_path / "t") as table:
        with open_timer(Other(macs_per_ms=1e6), table, threads=1) as timer:
            first = profile(graph, table, timer, max_points=6)
        with open_timer(SimulatedDevice(), table, threads=1) as timer:
            second = profile(graph, table, timer, max_points=6)
            assert timer.target != first.target
    assert second.known == 0
    assert second.measured > 0


def test_a_full_disk_ends_profiling_with_one_clear_error(tmp_path: Path) -> None:
    with LatencyTable(tmp_path / "t") as table, open_timer(SimulatedDevice(), table, threads=1) as timer:
        table._database._current().execute("PRAGMA max_page_count = 1")
        with pytest.raises(DiskFullError, match="No space left"):
            profile(capture(network(), example()), table, timer, max_points=400)
        assert table.rows(), "what was measured before stays"


@pytest.mark.slow
def test_eight_processes_profile_into_one_table_at_once(tmp_path: Path) -> None:
    here = str(Path(__file__).parent)
    path = tmp_path / "lut.sqlite"
    workers = [
        subprocess.Popen([sys.executable, "-c", WORKER, str(path), here], stderr=subprocess.PIPE) for _ in range(8)
    ]
    ends = [(worker.communicate()[1], worker.returncode) for worker in workers]
    assert [code for _, code in ends] == [0] * 8, ends
    graph = capture(network(), example())
    with LatencyTable(path) as table, open_timer(SimulatedDevice(), table, threads=1) as timer:
        assert table.set_aside is None
        assert profile(graph, table, timer, max_points=8).measured == 0
        for signature in domains(graph):
            assert {took.status for took in table.points(timer.target, signature).values()} == {"ok"}
