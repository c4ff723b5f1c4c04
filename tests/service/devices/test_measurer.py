"""The process that measures: what hangs or crashes is ended, and blamed for it or not."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from threading import Timer
from typing import Any

import pytest

from compressor.service.devices import protocol
from compressor.service.devices.agent import Agent
from compressor.service.devices.measurer import Measurer, MeasuringDiedError
from compressor.service.devices.measuring import Setup
from compressor.service.devices.protocol import Request
from lut import Measurement
from profilers.errors import DeviceLostError, ProfilerError, RefusedError
from profilers.layers.layer_onnx import layer_onnx
from tests.service.devices.helpers import CONV, measuring, pair

Make = Callable[..., Measurer]


@pytest.fixture
def make(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Make]:
    monkeypatch.setenv("COMPRESSOR_RUNTIMES", "tests.service.devices.odd_runtimes:find")
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[3]))
    monkeypatch.setenv("ODD_MARK", str(tmp_path / "mark"))
    made: list[Measurer] = []

    def maker(runtime: str = "simulated", **setup: Any) -> Measurer:
        made.append(Measurer(Setup(runtime, str(tmp_path), threads=1, **setup)))
        return made[-1]

    yield maker
    for each in made:
        each.close()


def test_it_answers_one_request_after_the_other(make: Make) -> None:
    measurer = make()
    opened = measurer.ask(Request(protocol.OPEN), limit_s=60)
    for point in (8, 16):
        answer = measurer.ask(measuring(point, opened["reference_ms"]), limit_s=60)
        assert Measurement(**answer["result"]).status == "ok"
        assert answer["target"] == opened["target"]


def test_a_runtime_that_is_not_there_says_so(make: Make) -> None:
    error = protocol.error_of(make("nothing-here").ask(Request(protocol.OPEN), limit_s=60))
    assert isinstance(error, ProfilerError)
    assert "nothing-here" in str(error)


@pytest.mark.parametrize(
    ("runtime", "how"),
    [("hangs", "did not answer within"), ("crashes", "crashed with SIGSEGV"), ("ends", "ended with code 3: no more")],
)
def test_what_hangs_or_crashes_is_ended_and_the_next_is_measured(runtime: str, how: str, make: Make) -> None:
    measurer = make(runtime)
    measurer.ask(Request(protocol.OPEN), limit_s=60)
    with pytest.raises(MeasuringDiedError, match=how):
        measurer.ask(measuring(13), limit_s=1.0)
    answer = measurer.ask(measuring(8), limit_s=60)
    assert answer["result"]["status"] == "ok"


def test_memory_is_limited(make: Make) -> None:
    measurer = make("eats", memory_bytes=2 << 30)
    failure = protocol.error_of(measurer.ask(measuring(13), limit_s=60))
    assert failure is not None
    assert "MemoryError" in str(failure)
    assert measurer.ask(measuring(8), limit_s=60)["result"]["status"] == "ok"


def test_it_is_ended_from_another_thread(make: Make) -> None:
    measurer = make("hangs")
    measurer.ask(Request(protocol.OPEN), limit_s=60)
    timer = Timer(0.2, measurer.kill)
    timer.start()
    started = time.monotonic()
    with pytest.raises(MeasuringDiedError, match="it was ended"):
        measurer.ask(measuring(13), limit_s=600)
    assert time.monotonic() - started < 300


class NoLink:
    """For agents that are asked directly."""


def agent(measurer: Measurer, folder: Path) -> Agent:
    return Agent("jetson-1", NoLink(), measurer, folder, limit_s=60.0)  # type: ignore[arg-type]


def test_an_operator_that_kills_the_runtime_is_refused_and_the_device_goes_on(make: Make, tmp_path: Path) -> None:
    asked = agent(make("crashes"), tmp_path)
    answer = asked._answer(measuring(13).to_json())
    took = Measurement(**answer["result"])
    assert (took.status, took.median_ms) == ("refused", None)
    assert "SIGSEGV" in took.error
    assert asked._answer(measuring(8).to_json())["result"]["status"] == "ok"


def test_a_device_that_measures_nothing_any_more_is_named(make: Make, tmp_path: Path) -> None:
    error = protocol.error_of(agent(make("crashes"), tmp_path)._answer(measuring(7).to_json()))
    assert isinstance(error, DeviceLostError)
    assert "The device jetson-1 does not measure any more" in str(error)


def test_a_network_that_kills_the_runtime_is_refused(make: Make, tmp_path: Path) -> None:
    asked = agent(make("crashes"), tmp_path)
    request = pair()
    for sha256, channels in zip(request.files, (8, 13), strict=True):
        (asked.files.folder / f"{sha256}.onnx").write_bytes(layer_onnx(CONV, channels, 8, anchors=False))
    error = protocol.error_of(asked._answer(request.to_json()))
    assert isinstance(error, RefusedError)
    assert "jetson-1" in str(error)
    assert "SIGSEGV" in str(error)
