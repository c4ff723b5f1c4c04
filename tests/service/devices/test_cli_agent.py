"""``compress agent`` as it is started on a device: with ONNX Runtime, with a key, and what it says when it may not."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from torch import nn

from compressor.cli.app import run
from compressor.graph import capture
from compressor.latency.profile import open_timer, profile
from compressor.service.access.keys import Keys
from exporters.formats.onnx import OnnxExporter
from lut import LatencyTable
from profilers import registry
from tests.latency.simulated_models import example
from tests.service.devices.conftest import Served
from tests.service.devices.test_farm import child, registered

ROOT = Path(__file__).parents[3]
Start = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture
def start(served: Served, tmp_path: Path) -> Iterator[Start]:
    with ExitStack() as stack:

        def starter(name: str, *options: str, url: str | None = None) -> subprocess.Popen[str]:
            command = [sys.executable, "-m", "compressor", "agent", "--server", url or served.url, "--name", name]
            command += ["--cache-dir", str(tmp_path / name), "--threads", "1", *options]
            process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, cwd=ROOT, env={**os.environ})
            stack.callback(process.wait)
            stack.callback(process.kill)
            return process

        yield starter


def small() -> nn.Module:
    body = [nn.Conv2d(3, 16, 3, padding=1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 4)]
    return nn.Sequential(*body).eval()


@pytest.mark.slow
def test_two_agents_of_onnxruntime_give_two_tables_and_end_in_good_order(
    served: Served, start: Start, tmp_path: Path
) -> None:
    """One as fast as this machine, one as if it took twice as long."""
    running = {"ort-1": start("ort-1"), "ort-2": start("ort-2", "--slowdown", "2")}
    registered(served, *running)
    path = tmp_path / "small.onnx"
    OnnxExporter().export(small(), example(), path, check=False)
    for name in running:
        with (
            child(served, tmp_path / f"job {name}", name) as job_,
            LatencyTable(job_.lut) as table,
            open_timer(registry.get(name), table, threads=1) as timer,
        ):
            found = profile(capture(small(), example()), table, timer, max_points=4)
            assert found.measured > 0
            assert not found.refused
            assert timer.time_pair(path, path, seconds=0.5, sure=1.0).ratio == pytest.approx(1.0, abs=0.9)
    one, two = (served.farm.table(served.farm.devices.get(name)) for name in running)
    assert ("slowed 2x" in one[0]["key"], "slowed 2x" in two[0]["key"]) == (False, True)
    assert [s["key"] for s in one[0]["signatures"]] == [s["key"] for s in two[0]["signatures"]]
    for name, process in running.items():
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0, process.communicate()[1]
        assert not served.farm.devices.get(name).here, "it said good-bye"


@pytest.mark.slow
def test_an_agent_without_a_right_key_is_told_so(served: Served, start: Start, tmp_path: Path) -> None:
    Keys(served.services.database, served.services.clock).create("other", by="test")
    key = tmp_path / "key"
    key.write_text("cmpr_wrong\n")
    simulated = ("--simulated", "{}", "--key-file", str(key))
    process = start("sim-1", *simulated)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 2
    assert "refuses" in said
    assert len(said.strip().splitlines()) <= 2


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--name", "A b"], "--name is up to 63"),
        (["--name", "x", "--limit-memory", "much"], "--limit-memory is a size"),
        (["--name", "x", "--key-file", "/nowhere/key"], "cannot be read"),
        (["--name", "x", "--simulated", "[1]"], "--simulated is a JSON object"),
        (["--name", "x", "--server", "ftp://there"], "The server is a URL"),
    ],
)
def test_options_that_cannot_be_used(options: list[str], said: str, capsys: Any) -> None:
    assert run(["agent", "--server", "http://127.0.0.1:9", *options]) == 2
    assert said in capsys.readouterr().err


def test_a_runtime_that_does_not_work_here_ends_the_agent_with_a_line(capsys: Any, tmp_path: Path) -> None:
    options = ["--name", "x", "--runtime", "nothing-here", "--cache-dir", str(tmp_path)]
    assert run(["agent", "--server", "http://127.0.0.1:9", *options]) == 2
    assert "nothing-here" in capsys.readouterr().err
