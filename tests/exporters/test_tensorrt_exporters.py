"""TensorRT-RTX builds without a GPU, so its builder is tested for real; TensorRT shares the code."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from exporters.base import Availability
from exporters.errors import ExporterUsageError, MissingPackageError, UnsupportedExportError
from exporters.formats.onnx_source import HalfInside
from exporters.formats.tensorrt import TensorRTExporter
from exporters.formats.tensorrt_rtx import TensorRTRTXExporter
from exporters.nvidia import gpu_availability
from tests.exporters.export_models import Convnet, ManyOutputs, Refuses

IMAGE = torch.zeros(1, 3, 12, 12)
installed = pytest.mark.skipif(not TensorRTRTXExporter().is_available().ok, reason="tensorrt_rtx is not installed")


@installed
@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_builds_an_engine(precision: str, tmp_path: Path) -> None:
    info = TensorRTRTXExporter().export(Convnet(), IMAGE, tmp_path / "model.rtx", precision=precision)
    assert info.path.stat().st_size == info.bytes == info.details["engine_bytes"]
    assert info.details["layers"] > 5
    assert info.details["batch_range"] == [1, 1, 8]
    assert info.dynamic_batch
    if gpu_availability():
        assert info.checks
    else:
        assert not info.checks
        assert "built but not run: no NVIDIA driver" in info.notes[0]


@installed
def test_options_reach_the_builder(tmp_path: Path) -> None:
    cache = tmp_path / "timing.cache"
    info = TensorRTRTXExporter().export(
        Convnet(),
        IMAGE,
        tmp_path / "model.rtx",
        compute_capability="12.0",
        opt_batch=4,
        max_batch=16,
        tf32=True,
        timing_cache=cache,
        workspace_bytes=1 << 28,
        check=False,
    )
    assert info.details["compute_capability"] == "12.0"
    assert info.details["batch_range"] == [1, 4, 16]
    assert cache.is_file()
    static = TensorRTRTXExporter().export(
        Convnet(), torch.zeros(2, 3, 12, 12), tmp_path / "static.rtx", dynamic_batch=False, check=False
    )
    assert static.details["batch_range"] is None


@installed
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"compute_capability": "9.9"}, r"does not build for '9.9'; choose from .*12\.0"),
        ({"precision": "int8"}, "needs calibration inputs, or onnx_path"),
        ({"precision": "fp4"}, "fp32, fp16 or int8, not 'fp4'"),
        ({"max_batch": 2, "opt_batch": 4}, "min 1, opt 4, max 2"),
    ],
)
def test_options_that_make_no_sense(options: dict[str, object], message: str, tmp_path: Path) -> None:
    with pytest.raises(ExporterUsageError, match=message):
        TensorRTRTXExporter().export(Convnet(), IMAGE, tmp_path / "model.rtx", **options)  # type: ignore[arg-type]
    assert not (tmp_path / "model.rtx").exists()


@installed
def test_a_file_the_parser_refuses(tmp_path: Path) -> None:
    import onnx

    node = onnx.helper.make_node("NoSuchOperator", ["x"], ["y"], domain="nowhere")
    shape = onnx.helper.make_tensor_value_info
    graph = onnx.helper.make_graph([node], "g", [shape("x", 1, [1])], [shape("y", 1, [1])])
    onnx.save(onnx.helper.make_model(graph), tmp_path / "bad.onnx")
    with pytest.raises(UnsupportedExportError, match="cannot parse") as caught:
        TensorRTRTXExporter().export(Convnet(), IMAGE, tmp_path / "m.rtx", onnx_path=tmp_path / "bad.onnx")
    assert "\n" not in str(caught.value)
    with pytest.raises(UnsupportedExportError):
        TensorRTRTXExporter().export(Refuses(), IMAGE, tmp_path / "m.rtx")


def test_half_inside_keeps_the_outside_single() -> None:
    model = ManyOutputs("nested")
    half = HalfInside(model)
    output = half(torch.randn(2, 6))
    assert output["out"].dtype == torch.float32  # type: ignore[index]
    assert model.layer.weight.dtype == torch.float32
    assert half.model.layer.weight.dtype == torch.float16


def test_what_is_missing_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("exporters.base.importlib.util.find_spec", lambda name: None)
    for exporter, extra in ((TensorRTExporter(), "gpu"), (TensorRTRTXExporter(), "tensorrt-rtx")):
        with pytest.raises(MissingPackageError, match=rf"compressor\[{extra}\]"):
            exporter.export(Convnet(), IMAGE, tmp_path / "model.engine")


def test_tensorrt_needs_the_gpu_it_builds_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("exporters.base.importlib.util.find_spec", lambda name: object())
    monkeypatch.setattr("exporters.formats.tensorrt_build.gpu_availability", lambda: Availability(False, "no GPU"))
    assert TensorRTExporter().is_available().reason == "no GPU"
    assert TensorRTRTXExporter().is_available().ok
