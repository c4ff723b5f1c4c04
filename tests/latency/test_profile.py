"""Measuring a model's operators into a table: complete, shared, resumable, honest about refusals and noise."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import torch
from torch import nn

from compressor.graph import capture
from compressor.latency.predict import Lookup
from compressor.latency.profile import known_surfaces, open_timer, profile
from compressor.latency.signatures import domains, signature_of
from lut import LatencyTable, Measurement, Signature
from profilers import registry
from profilers.errors import ProfilerUsageError, RefusedError
from profilers.layers.layer_timer import LayerTimer
from profilers.runtimes.simulated import SimulatedDevice
from profilers.runtimes.simulated_work import Product
from tests.latency.simulated_models import example, network


def test_every_signature_of_a_graph_is_measured_and_a_second_run_measures_nothing(tmp_path: Path) -> None:
    graph = capture(network(), example())
    with LatencyTable(tmp_path / "t") as table, open_timer(SimulatedDevice(), table, threads=1) as timer:
        first = profile(graph, table, timer)
        assert set(first.refinements) == set(domains(graph))
        assert first.finished
        assert first.measured > 0
        again = profile(graph, table, timer)
    assert again.measured == 0
    assert again.known >= first.measured


def test_a_model_with_the_same_layers_takes_them_from_the_table(tmp_path: Path) -> None:
    with LatencyTable(tmp_path / "t") as table, open_timer(SimulatedDevice(), table, threads=1) as timer:
        first = profile(capture(network(), example()), table, timer)
        wider = nn.Sequential(network(), nn.ReLU(), nn.Linear(10, 5))
        second = profile(capture(wider, example()), table, timer)
    assert second.measured < 0.2 * first.measured


def test_a_wider_model_measures_what_the_table_knows_only_of_a_narrower_one(tmp_path: Path) -> None:
    def stack(width: int) -> nn.Module:
        return nn.Sequential(nn.Conv2d(3, width, 3), nn.Conv2d(width, width, 3), nn.Conv2d(width, 4, 3)).eval()

    with LatencyTable(tmp_path / "t") as table, open_timer(SimulatedDevice(), table, threads=1) as timer:
        profile(capture(stack(32), example()), table, timer, max_points=6)
        graph = capture(stack(64), example())
        found = profile(graph, table, timer, max_points=6)
        points = known_surfaces(table, found.target, graph)[signature_of(graph.operators[1])]
        again = profile(graph, table, timer, max_points=6)
    assert (64, 64) in points
    assert sum(max(point) > 32 for point in points) >= 3
    assert again.measured == 0


def test_stopped_by_time_it_goes_on_where_it_was(tmp_path: Path) -> None:
    graph = capture(network(), example())
    with LatencyTable(tmp_path / "t") as table, open_timer(SimulatedDevice(), table, threads=1) as timer:
        cut = profile(graph, table, timer, seconds=1e-9)
        assert not cut.finished
        whole = profile(graph, table, timer)
        assert whole.finished


def test_times_are_those_of_the_device_when_the_table_was_begun(tmp_path: Path) -> None:
    """A device that slows down by half in between gives the same numbers."""
    device = SimulatedDevice()
    signature = Signature("conv2d", (3, 3), (1, 1), (1, 1), (1, 1), spatial=(14, 14))
    with LatencyTable(tmp_path / "t") as table:
        with open_timer(device, table, threads=1) as timer:
            before = timer.measure(signature, 32, 64)
        slow = SimulatedDevice(macs_per_ms=device.macs_per_ms / 1.5, call_ms=device.call_ms * 1.5)
        with open_timer(slow, table, threads=1) as timer:
            assert timer.drift() == pytest.approx(1.5)
            after = timer.measure(signature, 32, 64)
    assert after.median_ms == pytest.approx(before.median_ms)


def test_a_point_costs_what_the_device_says(tmp_path: Path) -> None:
    device = SimulatedDevice()
    with LayerTimer(device, threads=1) as timer:
        took = timer.measure(Signature("conv2d", (3, 3), (1, 1), (1, 1), (1, 1), spatial=(14, 14)), 30, 60)
        grouped = timer.measure(Signature("conv2d", (3, 3), (1, 1), (1, 1), (1, 1), groups=4, spatial=(8, 8)), 8, 8)
    assert took.median_ms == pytest.approx(device.cost_ms(Product(30, 60, 14 * 14, 9)))
    assert grouped.median_ms == pytest.approx(device.cost_ms(Product(8, 8, 64, 9, 4)))


@pytest.mark.parametrize("lasting", [False, True])
def test_a_point_that_does_not_fit_in_is_measured_again(
    lasting: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What something disturbed all runs of one point alike is found out; what the device does each time stays."""
    graph = capture(network(), example())
    strided = next(signature_of(o) for o in graph.operators if o.stride == (2, 2))
    corner = 32, 48
    measure, asked = LayerTimer.measure, list[tuple[Signature, int, int]]()

    def disturbed(self: LayerTimer, signature: Signature, channels_in: int, channels_out: int) -> Measurement:
        took = measure(self, signature, channels_in, channels_out)
        asked.append((signature, channels_in, channels_out))
        if asked[-1] == (strided, *corner) and (lasting or asked.count(asked[-1]) == 1):
            assert took.median_ms is not None
            return dataclasses.replace(took, median_ms=2 * took.median_ms)
        return took

    monkeypatch.setattr(LayerTimer, "measure", disturbed)
    device = SimulatedDevice()
    with LatencyTable(tmp_path / "t") as table, open_timer(device, table, threads=1) as timer:
        found = profile(graph, table, timer)
        point = table.get(found.target, strided, corner)
    assert asked.count((strided, *corner)) == 2
    assert 1 <= found.again <= 0.25 * found.measured
    assert point is not None
    cost_ms = device.cost_ms(Product(*corner, 36, 9))
    assert point.median_ms == pytest.approx(2 * cost_ms if lasting else cost_ms)


def test_a_refused_signature_is_recorded_and_estimated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    graph = capture(network(), example())
    device = SimulatedDevice()
    strided = next(signature_of(o) for o in graph.operators if o.stride == (2, 2))
    measure = LayerTimer.measure

    def refusing(self: LayerTimer, signature: Signature, channels_in: int, channels_out: int) -> Measurement:
        if signature == strided:
            return Measurement.refused("no kernel for this")
        return measure(self, signature, channels_in, channels_out)

    monkeypatch.setattr(LayerTimer, "measure", refusing)
    with LatencyTable(tmp_path / "t") as table, open_timer(device, table, threads=1) as timer:
        found = profile(graph, table, timer)
        lookup = Lookup(graph, known_surfaces(table, found.target, graph))
    assert found.refused == {strided.label: "no kernel for this"}
    assert lookup.estimated == [strided.label]


def test_the_runtime_s_refusal_becomes_a_measurement(monkeypatch: pytest.MonkeyPatch) -> None:
    with LayerTimer(SimulatedDevice(), threads=1) as timer:

        def refuse(*_: object, **__: object) -> None:
            raise RefusedError("no such kernel")

        monkeypatch.setattr(timer.runtime, "load", refuse)
        took = timer.measure(Signature("relu", spatial=(4, 4), axes=1), 4, 4)
    assert (took.status, took.error) == ("refused", "no such kernel")


def test_a_noisy_machine_is_named_with_its_spread(tmp_path: Path) -> None:
    graph = capture(network(), example())
    noisy = SimulatedDevice(noise=0.8)
    with LatencyTable(tmp_path / "t") as table, open_timer(noisy, table, threads=1) as timer:
        found = profile(graph, table, timer, max_points=6)
    assert found.noise is not None
    assert found.noise.startswith("This machine is too noisy")
    assert "spread" in found.noise
    elsewhere = dataclasses.replace(found, place="jetson-1").noise
    assert elsewhere is not None
    assert elsewhere.startswith("jetson-1 is too noisy")


def test_rows_of_another_device_are_never_used(tmp_path: Path) -> None:
    graph = capture(network(), example())
    with LatencyTable(tmp_path / "t") as table:
        with open_timer(SimulatedDevice(), table, threads=1) as timer:
            profile(graph, table, timer)
        with open_timer(SimulatedDevice(), table, threads=2) as timer:
            assert known_surfaces(table, timer.target, graph) == {}


def test_targets_that_take_no_single_operators_are_refused() -> None:
    with pytest.raises(ProfilerUsageError, match="torch-cpu"):
        LayerTimer(registry.get("torch-cpu"))


@pytest.mark.parametrize("target", ["onnxruntime-cpu", "openvino-cpu"])
def test_real_runtimes_run_every_kind_of_operator(target: str) -> None:
    runtime = registry.get(target)
    if not runtime.is_available():
        pytest.skip(str(runtime.is_available().reason))
    image: dict[str, tuple[int, ...]] = {"spatial": (8, 8)}
    last = (("last", True),)
    kinds = [
        Signature("conv2d", (3, 3), (1, 1), (1, 1), (1, 1), spatial=(8, 8), fused=("norm", "add", "relu")),
        Signature("conv2d", (3, 3), (2, 2), (1, 1), (1, 1), spatial=(8, 8), fused=("silu",), depthwise=True, axes=1),
        Signature("conv2d", (3, 3), (1, 1), (1, 1), (1, 1), spatial=(8, 8), groups=4, fused=("hardswish",)),
        Signature("conv_transpose2d", (2, 2), (2, 2), (0, 0), (1, 1), spatial=(8, 8)),
        Signature("linear", spatial=(1,), fused=("relu6",)),
        Signature("linear", spatial=(9,), fused=("gelu",)),
        Signature("matmul", spatial=(4, 9)),
        Signature("attention", spatial=(9, 9), attributes=(("heads", 4),)),
        *(
            Signature("recurrent", spatial=(9,), attributes=(("cell", cell), ("directions", directions)))
            for cell in ("lstm", "gru", "rnn_tanh", "rnn_relu")
            for directions in (1, 2)
        ),
        Signature("max_pool2d", (3, 3), (2, 2), (1, 1), spatial=(8, 8), axes=1),
        Signature("avg_pool2d", (2, 2), (2, 2), (0, 0), spatial=(8, 8), axes=1),
        Signature("resize", spatial=(8, 8), attributes=(("mode", "nearest"), ("scale", 2.0)), axes=1),
        Signature("group_norm", spatial=(8, 8), attributes=(("groups", 4),), axes=1),
        Signature("layer_norm", spatial=(9,), attributes=last, axes=1),
        Signature("softmax", spatial=(9,), attributes=last, axes=1),
        *(Signature(kind, **image, axes=1) for kind in ("batch_norm", "concat", "add", "scale", "global_pool", "move")),
        *(Signature(kind, **image, axes=1) for kind in ("relu", "sigmoid", "hardsigmoid", "other")),
    ]
    torch.manual_seed(0)
    with LayerTimer(runtime, threads=1, burst_ms=0.1) as timer:
        for signature in kinds:
            took = timer.measure(signature, 8, 8)
            assert took.status != "refused", f"{signature.label}: {took.error}"
