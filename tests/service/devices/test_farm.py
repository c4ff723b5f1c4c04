"""A server, agents of simulated devices, and jobs that hold latency budgets on them, through every part in between."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import compressor
from compressor.deploy.timing import bench
from compressor.graph import capture
from compressor.latency.known import known_latency
from compressor.latency.profile import open_timer, profile
from compressor.latency.target import TargetSettings
from compressor.service.devices.relay import Relay
from compressor.service.devices.remote import attached
from exporters.formats.onnx import OnnxExporter
from lut import LatencyTable
from profilers import registry
from profilers.errors import DeviceLostError, ProfilerUsageError
from profilers.layers.layer_timer import LayerTimer
from profilers.runtimes.simulated import SimulatedDevice
from tests.latency.simulated_models import example
from tests.service.devices.conftest import Served
from tests.service.devices.helpers import job


def network() -> nn.Module:
    """Three convolutions on 12x12 images: every file of it is cut from one export."""
    torch.manual_seed(0)
    body = [nn.Conv2d(3, 32, 3, padding=1), nn.ReLU(), nn.Conv2d(32, 48, 3, 2, 1), nn.ReLU(), nn.Conv2d(48, 64, 3)]
    return nn.Sequential(*body, nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, 10)).eval()


FAST = {"step_in": 1, "step_out": 1, "call_ms": 0.001}
SLOW = {"step_in": 1, "step_out": 1, "call_ms": 0.05, "macs_per_ms": 2e6}


@dataclass
class Child:
    """A job that runs in this process."""

    lut: Path
    relay: Relay
    job: str
    token: str


@contextmanager
def child(served: Served, folder: Path, *targets: str) -> Iterator[Child]:
    """As the worker and its child do it."""
    folder.mkdir(exist_ok=True)
    name, token = job(served.services)
    with (
        served.client() as client,
        Relay(folder, client, name, token) as relay,
        attached(folder, targets) as lut,
    ):
        yield Child(lut, relay, name, token)


def registered(served: Served, *names: str) -> None:
    waited = threading.Event()
    for _ in range(600):
        if {device.name for device in served.farm.devices.list() if device.here} >= set(names):
            return
        waited.wait(0.05)
    raise AssertionError(f"{names} did not come")


def compressed(target: Any, lut: Path, budget: str = "60%") -> Any:
    settings = TargetSettings(target, lut=lut, threads=1, subnets=6, max_points=8)
    return compressor.compress(network(), example(), {"latency": budget}, target=settings)


def widths(result: Any) -> list[int]:
    return [width.after for width in result.report.widths]


@pytest.mark.slow
def test_a_job_on_a_device_is_a_job_on_a_local_target(served: Served, agents: Any, tmp_path: Path) -> None:
    """Same table, same calibration, same network; and the second job measures no operator again."""
    agents("slow-1", **SLOW)
    registered(served, "slow-1")
    local = compressed(SimulatedDevice(device="simulated slow-1", **SLOW), tmp_path / "local.sqlite")
    with child(served, tmp_path / "one", "slow-1") as job_:
        far = compressed("slow-1", job_.lut)
        with LatencyTable(job_.lut) as mine, LatencyTable(tmp_path / "local.sqlite") as wanted:
            assert {r.place: r.measurement.median_ms for r in mine.rows()} == {
                r.place: r.measurement.median_ms for r in wanted.rows()
            }
            (target,) = mine.targets()
    assert target.device.name == "simulated slow-1"
    assert widths(far) == widths(local)
    assert far.report.budgets[0].reached == local.report.budgets[0].reached
    assert far.report.budgets[0].original == local.report.budgets[0].original
    record = served.farm.devices.get("slow-1")
    (table,) = served.farm.table(record)
    assert table["key"] == target.key
    assert len(table["calibrations"]) == 1
    before, asked = served.farm.counts(), list[str]()
    next_ = served.farm.commands.next

    def noted(*args: Any) -> Any:
        found = next_(*args)
        asked.extend([found.request["operation"]] if found is not None else [])
        return found

    served.farm.commands.next = noted  # type: ignore[method-assign]
    with child(served, tmp_path / "two", "slow-1") as job_:
        again = compressed("slow-1", job_.lut)
        graph = capture(network(), example())
        term = known_latency(graph, "slow-1", job_.lut, threads=1, model="it")
        assert float(term.original) == pytest.approx(again.report.budgets[0].original, rel=0.2)
    assert not {"measure", "networks"} & set(asked), asked
    assert widths(again) == widths(far)
    assert served.farm.counts() == before


@pytest.mark.slow
def test_two_devices_give_two_tables_and_two_results(served: Served, agents: Any, tmp_path: Path) -> None:
    agents("fast-1", **FAST)
    agents("slow-1", **SLOW)
    registered(served, "fast-1", "slow-1")
    found = {}
    for name in ("fast-1", "slow-1"):
        with child(served, tmp_path / name, name) as job_:
            found[name] = compressed(name, job_.lut, "50%")
    fast, slow = (served.farm.table(served.farm.devices.get(name)) for name in found)
    assert len(fast) == len(slow) == 1
    assert fast[0]["key"] != slow[0]["key"]
    times = [{s["key"]: s["points"] for s in table[0]["signatures"]} for table in (fast, slow)]
    assert set(times[0]) == set(times[1])
    assert times[0] != times[1]
    assert widths(found["fast-1"]) != widths(found["slow-1"])
    before = [found[name].report.budgets[0].original for name in found]
    assert before[1] > 2 * before[0]


@pytest.mark.slow
def test_an_agent_that_vanishes_in_the_middle_loses_nothing_and_is_named(
    served: Served, agents: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = agents("slow-1", **SLOW)
    registered(served, "slow-1")
    local = compressed(SimulatedDevice(device="simulated slow-1", **SLOW), tmp_path / "local.sqlite")
    served_points = threading.Event()
    waited: list[str] = []
    finish = served.farm.commands.finish
    counted: list[str] = []

    def counting(name: str, command: str, *rest: Any) -> None:
        counted.append(command)
        if len(counted) == 20:
            served_points.set()
            raise OSError("the agent is gone in this moment")  # its answer is lost, too
        finish(name, command, *rest)

    monkeypatch.setattr(served.farm.commands, "finish", counting)
    with child(served, tmp_path / "one", "slow-1") as job_:
        results: list[Any] = []
        work = threading.Thread(target=lambda: results.append(compressed("slow-1", job_.lut)), daemon=True)
        work.start()
        assert served_points.wait(60)
        vanish(first)
        kept = served.farm.counts()
        pause = threading.Event()
        while not waited and work.is_alive():
            pause.wait(0.1)
            waited += [line for line in [job_.relay.waiting_for] if line]
        assert waited[0].startswith("device slow-1, last seen")
        assert served.farm.counts() == kept, "what was measured stays"
        agents("slow-1", **SLOW)
        work.join(600)
        assert not work.is_alive()
    assert widths(results[0]) == widths(local)
    assert len(counted) == len(set(counted)) + 1, "only what was lost is measured again"


def vanish(agent: Any) -> None:
    """As if its machine had lost power: it says nothing more."""
    agent.agent._say = lambda line: None
    agent.link.try_post = lambda *_, **__: (0, {})
    agent.link.stop.set()
    agent.measurer.kill()
    agent.join()


def test_a_device_that_does_not_come_back_fails_the_job_with_its_name(
    served: Served, agents: Any, tmp_path: Path
) -> None:
    first = agents("slow-1", **SLOW)
    registered(served, "slow-1")
    served.farm.commands._patience_s = 1.0
    graph = capture(network(), example())
    with (
        child(served, tmp_path / "one", "slow-1") as job_,
        LatencyTable(job_.lut) as table,
        open_timer(registry.get("slow-1"), table, threads=1) as timer,
    ):
        first.stop()
        with pytest.raises(DeviceLostError, match=r"The device slow-1 is away, last seen \d+ s ago"):
            profile(graph, table, timer, max_points=6)


@pytest.mark.slow
def test_files_and_modules_are_timed_there(served: Served, agents: Any, tmp_path: Path) -> None:
    agents("slow-1", **SLOW)
    registered(served, "slow-1")
    path = tmp_path / "x.onnx"
    OnnxExporter().export(network(), example(), path, check=False)
    here = SimulatedDevice(device="simulated slow-1", **SLOW)
    with child(served, tmp_path / "one", "slow-1"):
        runtime = registry.get("slow-1")
        assert runtime.is_available()
        for model, inputs in ((path, None), (path, example())):
            runner = runtime.load(model, inputs, threads=1, batch=2)
            wanted = here.load(path, threads=1, batch=2)
            assert runner.info == wanted.info
            assert runner.measure(3).latency_ms == pytest.approx(wanted.measure(3).latency_ms)
            runner.close()
            with pytest.raises(ProfilerUsageError, match="closed"):
                runner.measure(1)
        found = bench({"file": path, "module": network()}, example(), target="slow-1", threads=1, seconds=0.1)
        assert found.ratios["module"].value == pytest.approx(1.0)
        assert found.timings["file"].device == "simulated slow-1"
        with pytest.raises(ProfilerUsageError, match="Single operators"):
            LayerTimer(runtime, threads=1)
        with pytest.raises(ProfilerUsageError, match="takes ONNX files"):
            runtime.load(Path(__file__))
        with pytest.raises(ProfilerUsageError, match="Unknown target 'slow-2'"):
            registry.get("slow-2")
    with pytest.raises(ProfilerUsageError, match="Unknown target"):
        registry.get("slow-1")


@pytest.mark.slow
def test_two_jobs_take_turns_and_both_are_right(served: Served, agents: Any, tmp_path: Path) -> None:
    agents("slow-1", **SLOW)
    registered(served, "slow-1")
    running: list[int] = []
    most: list[int] = []
    next_, finish = served.farm.commands.next, served.farm.commands.finish

    def noted(*args: Any) -> Any:
        found = next_(*args)
        if found is not None:
            running.append(1)
            most.append(len(running))
        return found

    def ended(*args: Any) -> None:
        running.pop()
        finish(*args)

    served.farm.commands.next, served.farm.commands.finish = noted, ended  # type: ignore[method-assign]
    graph = capture(network(), example())
    jobs = [job(served.services) for _ in range(2)]
    order: list[str] = []

    def measure(which: int) -> None:
        from compressor.service.devices.channel import FOLDER, SOCKET, Channel
        from compressor.service.devices.remote_runtime import RemoteRuntime

        folder = tmp_path / f"{which}"
        folder.mkdir()
        with served.client() as client, Relay(folder, client, *jobs[which]):
            runtime = RemoteRuntime.open(Channel(folder / FOLDER / SOCKET), "slow-1", folder / "t")
            with LatencyTable(folder / "t") as table, open_timer(runtime, table, threads=1) as timer:
                profile(graph, table, timer, max_points=5)
                order.append(str(which))

    threads = [threading.Thread(target=measure, args=(which,), daemon=True) for which in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(300)
    assert sorted(order) == ["0", "1"]
    assert set(most) == {1}, "never two at a time"
    with LatencyTable(tmp_path / "0" / "t") as one, LatencyTable(tmp_path / "1" / "t") as two:
        assert [r.measurement.median_ms for r in one.rows()] == [r.measurement.median_ms for r in two.rows()]


def test_another_machine_and_a_wrong_server_end_an_agent(served: Served, agents: Any, tmp_path: Path) -> None:
    agents("slow-1", **SLOW)
    registered(served, "slow-1")
    other = agents("slow-1", device="another machine")
    other.join()
    assert "belongs to another machine" in str(other.error)
    assert "Choose another --name" in str(other.error)


def test_without_devices_nothing_changes(tmp_path: Path) -> None:
    with attached(tmp_path, ["onnxruntime-cpu"]) as lut:
        assert lut.parent == tmp_path / ".device"
        assert registry.elsewhere("onnxruntime-cpu") is None
