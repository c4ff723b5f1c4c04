"""What is measured for others is what is measured here: the same code, the same numbers."""

from __future__ import annotations

import hashlib
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from compressor.errors import UsageError
from compressor.service.devices import protocol
from compressor.service.devices.measuring import Setup
from compressor.service.devices.operations import Operations
from compressor.service.devices.protocol import Request
from compressor.service.devices.remote_runtime import RemoteRuntime, RemoteTimer
from compressor.service.devices.slowed import slowed
from lut import Measurement
from profilers.errors import ProfilerUsageError, RefusedError
from profilers.in_turn import Limit
from profilers.interleave import interleave
from profilers.layers.layer_onnx import layer_onnx
from profilers.layers.layer_timer import LayerTimer
from profilers.runtimes.simulated import SimulatedDevice
from profilers.side_by_side import time_in_turn
from tests.service.devices.helpers import CONV, measuring


@pytest.fixture
def files(tmp_path: Path) -> list[str]:
    """Three networks of 8, 16 and 32 channels, by hash."""
    found = []
    for width in (8, 16, 32):
        content = layer_onnx(CONV, width, width, anchors=False)
        found.append(hashlib.sha256(content).hexdigest())
        (tmp_path / f"{found[-1]}.onnx").write_bytes(content)
    return found


def result(answer: dict[str, Any]) -> dict[str, Any]:
    assert "error" not in answer, answer
    found: dict[str, Any] = answer["result"]
    return found


def test_the_same_numbers_as_here(files: list[str], tmp_path: Path) -> None:
    paths = [tmp_path / f"{sha256}.onnx" for sha256 in files]
    there = Operations(SimulatedDevice(), tmp_path, threads=1)
    with LayerTimer(SimulatedDevice(), threads=1) as here:
        opened = there.answer(Request(protocol.OPEN))
        assert opened["reference_ms"] == here.reference_ms
        assert opened["target"] == here.target.key
        took = Measurement(**result(there.answer(measuring(16, here.reference_ms))))
        assert took.median_ms == here.measure(CONV, 16, 16).median_ms
        asked: dict[str, Any] = {"paths": [("a", files[1]), ("b", files[2])], "reference": files[0]}
        asked |= {"network_ms": None, "rounds": 3}
        networks = here.time_networks({"a": paths[1], "b": paths[2]}, paths[0], rounds=3)
        assert result(there.answer(Request(protocol.NETWORKS, arguments=asked))) == asdict(networks)
        limit = Limit(0.5, True)
        asked = {"original": files[0], "other": files[1], "limit": asdict(limit), "seconds": 1.0, "sure": 0.01}
        pair = here.time_pair(paths[0], paths[1], limit=limit, seconds=1.0, sure=0.01)
        assert result(there.answer(Request(protocol.PAIR, arguments=asked))) == asdict(pair)
    device = SimulatedDevice()
    local = interleave({"b": device.load(paths[0]), "a": device.load(paths[1])}, seconds=0.1)
    asked = {"models": [("b", {"file": files[0]}), ("a", {"file": files[1]})], "seconds": 0.1}
    told = protocol.comparison_of(result(there.answer(Request(protocol.INTERLEAVE, arguments=asked))))
    assert told.ratios["a"].value == local.ratios["a"].value
    assert told.timings["b"].median_ms == local.timings["b"].median_ms
    assert list(told.timings) == ["b", "a"]
    there.close()


def test_the_unit_of_time_is_the_asker_s(tmp_path: Path) -> None:
    there = Operations(SimulatedDevice(), tmp_path, threads=1)
    found = there.answer(Request(protocol.OPEN))["reference_ms"]
    one, half = (result(there.answer(measuring(8, found * unit)))["median_ms"] for unit in (1.0, 0.5))
    assert half == pytest.approx(one / 2)
    assert there.answer(Request(protocol.OPEN))["reference_ms"] == found, "of another job"


def test_what_the_runtime_refuses_is_an_answer(files: list[str], tmp_path: Path) -> None:
    class Refusing(SimulatedDevice):
        def load(self, model: Any, example_inputs: Any = None, **how: Any) -> Any:
            if files[0] in str(model):
                raise RefusedError("no kernel")
            return super().load(model, example_inputs, **how)

    there = Operations(Refusing(), tmp_path, threads=1)
    asked = {"original": files[0], "other": files[1], "limit": None, "seconds": 1.0, "sure": 0.01}
    error = protocol.error_of(there.answer(Request(protocol.PAIR, arguments=asked)))
    assert isinstance(error, RefusedError)
    assert str(error) == "no kernel"


@pytest.mark.parametrize(
    "arguments",
    [
        {},
        {"signature": "nonsense", "channels_in": 1, "channels_out": 1},
        {"signature": CONV.key, "channels_in": 0, "channels_out": 1},
        {"signature": CONV.key, "channels_in": "8", "channels_out": 8},
    ],
)
def test_requests_that_make_no_sense_are_refused(arguments: dict[str, Any], tmp_path: Path) -> None:
    there = Operations(SimulatedDevice(), tmp_path, threads=1)
    error = protocol.error_of(there.answer(Request(protocol.MEASURE, arguments=arguments)))
    assert isinstance(error, ProfilerUsageError)
    there.close()


def test_files_outside_of_the_folder_are_not_opened(tmp_path: Path) -> None:
    there = Operations(SimulatedDevice(), tmp_path, threads=1)
    asked = {"file": "../../etc/passwd", "runs": 1}
    error = protocol.error_of(there.answer(Request(protocol.SAMPLES, arguments=asked)))
    assert isinstance(error, ProfilerUsageError)
    assert "SHA-256" in str(error)


@pytest.mark.parametrize(
    "value",
    [
        None,
        {"operation": "answer"},
        {"operation": "open", "more": 1},
        {"operation": "open", "threads": 0},
        {"operation": "open", "threads": 1.5},
        {"operation": "open", "batch": True},
        {"operation": "open", "reference_ms": float("nan")},
        {"operation": "open", "files": ["../x"]},
        {"operation": "open", "files": ["a" * 64] * 257},
        {"operation": "open", "arguments": []},
    ],
)
def test_hostile_requests(value: Any) -> None:
    with pytest.raises(UsageError):
        Request.from_json(value)


class _Asked:
    """A way to a device, straight to its operations."""

    def __init__(self, there: Operations) -> None:
        self._there = there

    def ask(self, document: dict[str, Any]) -> dict[str, Any]:
        return {"answer": self._there.answer(Request.from_json(document["request"]))}


def test_a_noisy_device_is_named(files: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    document = {"name": "jetson-1", "runtime": "simulated", "fingerprint": "f", "label": "l", "runtime_version": "1"}
    channel: Any = _Asked(Operations(SimulatedDevice(noise=0.8), tmp_path, threads=1))
    runtime = RemoteRuntime(channel, "s", document, tmp_path)
    monkeypatch.setattr(runtime, "send", lambda path: path.stem)
    models = {label: (tmp_path / f"{sha256}.onnx", None) for label, sha256 in zip("ab", files, strict=False)}
    for timed in (runtime.interleave, partial(time_in_turn, runtime)):
        noise = timed(models, threads=1, batch=1, seconds=0.05).noise
        assert noise is not None
        assert noise.startswith("jetson-1 is too noisy")
    assert RemoteTimer(runtime, 1, 1).place == "jetson-1"
    with LayerTimer(SimulatedDevice(), threads=1) as here:
        assert here.place == "This machine"


def test_requests_and_errors_come_through_as_they_were() -> None:
    request = Request(protocol.PAIR, 2, 1, 0.5, {"original": "x"}, ("a" * 64,))
    assert Request.from_json(request.to_json()) == request
    for kind in protocol._ERRORS.values():
        found = protocol.error_of(protocol.error_json(kind("why")))
        assert type(found) is kind
        assert str(found) == "why"
    assert protocol.error_of({"result": {}}) is None


def test_cache_keys_differ_by_all_that_decides() -> None:
    base = Request(protocol.PAIR, 1, 1, 0.5, {"original": "x"})
    others = [
        Request(protocol.PAIR, 2, 1, 0.5, {"original": "x"}),
        Request(protocol.PAIR, 1, 2, 0.5, {"original": "x"}),
        Request(protocol.PAIR, 1, 1, 0.5, {"original": "y"}),
        Request(protocol.NETWORKS, 1, 1, 0.5, {"original": "x"}),
    ]
    keys = {base.cache_key("one"), base.cache_key("two"), *(other.cache_key("one") for other in others)}
    assert len(keys) == 6
    assert base.cache_key("one") == Request(protocol.PAIR, 1, 1, 0.7, {"original": "x"}).cache_key("one")
    assert Request(protocol.MEASURE).cache_key("one") is None, "points have a table"


def test_a_slowed_device_is_another_device(tmp_path: Path) -> None:
    setup = Setup("simulated", str(tmp_path), slowdown=2.0)
    plain, slow = SimulatedDevice(), setup.make()
    path = tmp_path / "x.onnx"
    path.write_bytes(layer_onnx(CONV, 8, 8, anchors=False))
    assert slow.load(path).measure(1).latency_ms == [2 * plain.load(path).measure(1).latency_ms[0]]
    there = Operations(slow, tmp_path, threads=1, renamed=setup.renamed)
    with LayerTimer(plain, threads=1) as here:
        assert "slowed 2x" in there.answer(Request(protocol.OPEN))["target"]
        assert there.answer(Request(protocol.OPEN))["target"] != here.target.key
    assert slowed(plain, 1.5).name == "simulated"
