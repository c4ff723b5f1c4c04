"""Every registered runtime, and the ones that can run on any machine in detail."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from exporters.formats.onnx import OnnxExporter
from exporters.formats.torch_export import TorchExportExporter
from profilers import registry
from profilers.base import Runner, Runtime
from profilers.errors import ProfilerUsageError, RefusedError, TargetUnavailableError
from profilers.onnx_input import onnx_inputs, onnx_precision
from profilers.runtimes.simulated import SimulatedDevice
from profilers.runtimes.simulated_work import Product

IMAGE = torch.zeros(1, 3, 8, 8)


def small() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.Conv2d(8, 8, 3, groups=2),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(8, 4),
    ).eval()


@pytest.fixture(scope="module")
def onnx_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("onnx") / "small.onnx"
    return OnnxExporter().export(small(), IMAGE, path, check=False).path


@pytest.mark.parametrize("name", registry.names())
def test_contract(name: str) -> None:
    """What every runtime must do, available or not."""
    runtime = registry.get(name)
    assert isinstance(runtime, Runtime)
    assert runtime.name == name
    found = runtime.is_available()
    if not found:
        assert found.reason
        with pytest.raises(TargetUnavailableError, match=name):
            runtime.load(small(), IMAGE)
        return
    runner = runtime.load(small(), IMAGE, threads=1, batch=3)
    assert isinstance(runner, Runner)
    assert runner.info.runtime == name
    assert runner.info.batch == 3
    assert runner.info.version
    runner.run()
    samples = runner.measure(4)
    assert len(samples.latency_ms) == 4
    assert all(value > 0 for value in samples.latency_ms)
    for extra in (samples.enqueue_ms, samples.compute_ms):
        assert len(extra) in (0, 4)
    runner.close()
    with pytest.raises(ProfilerUsageError, match="example_inputs"):
        runtime.load(small())


def test_unknown_target() -> None:
    with pytest.raises(ProfilerUsageError, match=r"Unknown target 'onnxruntime'.*Did you mean onnxruntime-cpu"):
        registry.get("onnxruntime")


def test_onnxruntime_records_its_conditions(onnx_path: Path) -> None:
    info = registry.get("onnxruntime-cpu").load(onnx_path, threads=2, batch=4).info
    assert (info.threads, info.batch, info.precision) == (2, 4, "fp32")


def test_onnx_files_know_their_inputs(onnx_path: Path) -> None:
    inputs = onnx_inputs(onnx_path, None, 5)
    assert inputs["input"].shape == (5, 3, 8, 8)
    assert (inputs["input"] != 0).all()
    assert onnx_precision(onnx_path) == "fp32"


def test_a_fixed_batch_is_not_silently_ignored(tmp_path: Path) -> None:
    path = tmp_path / "fixed.onnx"
    OnnxExporter().export(small(), IMAGE, path, dynamic_batch=False, check=False)
    with pytest.raises(ProfilerUsageError, match="wants size 1 along axis 0"):
        registry.get("onnxruntime-cpu").load(path, IMAGE, batch=2)


@pytest.mark.parametrize("target", ["onnxruntime-cpu", "simulated"])
def test_files_that_cannot_be_used(target: str, tmp_path: Path) -> None:
    runtime = registry.get(target)
    with pytest.raises(ProfilerUsageError, match="no file"):
        runtime.load(tmp_path / "none.onnx")
    (tmp_path / "junk.onnx").write_bytes(b"\xff\xff\xffjunk")
    with pytest.raises(ProfilerUsageError, match="no ONNX file"):
        runtime.load(tmp_path / "junk.onnx")


def test_a_forward_that_raises_is_refused() -> None:
    for target in ("torch-cpu", "onnxruntime-cpu"):
        with pytest.raises(RefusedError):
            registry.get(target).load(nn.Linear(3, 3), torch.zeros(1, 7))


def test_torch_leaves_threads_and_module_alone() -> None:
    module = small().train()
    before = torch.get_num_threads()
    runner = registry.get("torch-cpu").load(module, IMAGE, threads=before + 1, channels_last=True)
    runner.measure(2)
    assert torch.get_num_threads() == before
    assert module.training
    assert module[0].weight.is_contiguous()
    runner.close()
    with pytest.raises(ProfilerUsageError, match="closed"):
        runner.run()


def test_torch_times_a_pt2_file(tmp_path: Path) -> None:
    path = tmp_path / "small.pt2"
    TorchExportExporter().export(small(), IMAGE, path, check=False)
    runner = registry.get("torch-cpu").load(path, threads=1, batch=2)
    assert runner.info.batch == 2
    runner.run()


class TestSimulated:
    def test_cost_is_a_staircase(self) -> None:
        device = SimulatedDevice(step_in=4, step_out=8, macs_per_ms=1e3, call_ms=0.5)
        costs = [device.cost_ms(Product(4, width, positions=10)) for width in range(1, 18)]
        assert costs[0] == costs[7] == pytest.approx(0.5 + 4 * 8 * 10 / 1e3)
        assert costs[8] == costs[15] > costs[7]
        assert sorted(set(costs)) == sorted(dict.fromkeys(costs))

    def test_module_and_onnx_file_cost_the_same(self, onnx_path: Path) -> None:
        device = SimulatedDevice()
        for batch in (1, 3):
            module = device.load(small(), IMAGE, batch=batch).measure(1).latency_ms[0]
            exported = device.load(onnx_path, IMAGE, batch=batch).measure(1).latency_ms[0]
            assert module == pytest.approx(exported, rel=1e-12)

    def test_counts_what_it_should(self) -> None:
        device = SimulatedDevice(step_in=1, step_out=1, macs_per_ms=1.0, call_ms=0.0)
        convolution = nn.Conv2d(4, 6, 3, groups=2)  # 36 positions x 3 out x 2 in x 9 x 2 groups
        assert device.load(convolution, torch.zeros(1, 4, 8, 8)).measure(1).latency_ms == [36 * 3 * 2 * 9 * 2]
        linear = device.load(nn.Linear(5, 7), torch.zeros(2, 3, 5))
        assert linear.measure(1).latency_ms == [2 * 3 * 5 * 7]


class TestOpenVino:
    @pytest.fixture(autouse=True)
    def _installed(self) -> None:
        if not registry.get("openvino-cpu").is_available():
            pytest.skip("openvino is not installed")

    def test_times_its_own_format_and_onnx(self, onnx_path: Path, tmp_path: Path) -> None:
        from exporters.formats.openvino import OpenVinoExporter

        ir = OpenVinoExporter().export(small(), IMAGE, tmp_path / "small.xml", check=False).path
        for path in (ir, onnx_path):
            info = registry.get("openvino-cpu").load(path, threads=1, batch=2).info
            assert (info.batch, info.threads, info.precision) == (2, 1, "fp32")

    def test_refuses_what_it_should(self, tmp_path: Path) -> None:
        runtime = registry.get("openvino-cpu")
        (tmp_path / "junk.xml").write_text("junk")
        with pytest.raises(ProfilerUsageError, match="no IR or ONNX file"):
            runtime.load(tmp_path / "junk.xml")
        with pytest.raises(ProfilerUsageError, match="fp32 or bf16, not 'fp8'"):
            runtime.load(small(), IMAGE, precision="fp8")
        path = tmp_path / "fixed.onnx"
        OnnxExporter().export(small(), IMAGE, path, dynamic_batch=False, check=False)
        with pytest.raises(ProfilerUsageError, match="wants size 1 along axis 0"):
            runtime.load(path, IMAGE, batch=2)


def test_listing_says_why_something_is_missing() -> None:
    found = registry.availability()
    assert list(found) == registry.names()
    assert found["onnxruntime-cpu"].ok
    assert all(entry.ok or entry.reason for entry in found.values())


@pytest.mark.parametrize("sizes", [[1, 1 << 40, 1 << 40], [1, 3, -4], [1 << 20, 1 << 20]])
def test_inputs_of_sizes_that_no_input_has_are_refused(tmp_path: Path, sizes: list[int]) -> None:
    onnx = pytest.importorskip("onnx")
    value = onnx.helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, sizes)
    result = onnx.helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, sizes)
    graph = onnx.helper.make_graph([onnx.helper.make_node("Relu", ["x"], ["y"])], "odd", [value], [result])
    path = tmp_path / "odd.onnx"
    onnx.save(onnx.helper.make_model(graph), str(path))
    with pytest.raises(ProfilerUsageError, match="sizes"):
        onnx_inputs(path, None, None)
