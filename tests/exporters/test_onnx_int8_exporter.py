"""Static quantisation by ONNX Runtime: quantised, close to PyTorch, and honest about what it cannot do."""

from __future__ import annotations

from pathlib import Path

import onnx
import pytest
import torch

from exporters.errors import ExportCheckError, ExporterUsageError, UnsupportedExportError
from exporters.formats.onnx import OnnxExporter
from exporters.formats.onnx_int8 import OnnxInt8Exporter, inputs_of
from exporters.formats.onnx_runtime import onnxruntime_run
from exporters.formats.tensorrt_rtx import TensorRTRTXExporter
from tests.exporters.export_models import Convnet, Refuses

IMAGE = torch.zeros(1, 3, 12, 12)


def calibration(count: int = 4) -> list[torch.Tensor]:
    random = torch.Generator().manual_seed(0)
    return [torch.randn(8, 3, 12, 12, generator=random) for _ in range(count)]


def test_every_convolution_computes_in_int8_and_stays_close(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = Convnet().eval()
    info = OnnxInt8Exporter().export(model, IMAGE, tmp_path / "m.int8.onnx", calibration=calibration())
    proto = onnx.load(info.path)
    dequantised = {node.output[0] for node in proto.graph.node if node.op_type == "DequantizeLinear"}
    layers = [node for node in proto.graph.node if node.op_type in ("Conv", "Gemm", "MatMul")]
    assert layers
    assert all(set(node.input[:2]) <= dequantised for node in layers)
    assert info.precision == "int8"
    assert info.dynamic_batch
    assert info.details["calibration_samples"] == 32
    assert info.details["quantised_operators"] >= len(layers)
    assert info.rel_error is not None
    assert 0 < info.rel_error < 0.1
    for batch in (1, 3):
        inputs = calibration(1)[0][:batch]
        with torch.no_grad():
            wanted = model(inputs)
        found = torch.from_numpy(onnxruntime_run(info.path)((inputs,))[0])
        assert float((found - wanted).abs().max() / wanted.abs().max()) < 0.1


def test_zero_is_zero_in_symmetric_ranges_as_tensorrt_wants_them(tmp_path: Path) -> None:
    path = OnnxInt8Exporter().export(Convnet(), IMAGE, tmp_path / "m.onnx", calibration=calibration()).path
    proto = onnx.load(path)
    named = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in proto.graph.initializer}
    zeros = [named[node.input[2]] for node in proto.graph.node if node.op_type == "QuantizeLinear"]
    assert zeros
    assert all((zero == 0).all() for zero in zeros)


@pytest.mark.parametrize("method", ["entropy", "percentile"])
def test_other_ways_to_find_ranges(method: str, tmp_path: Path) -> None:
    info = OnnxInt8Exporter().export(Convnet(), IMAGE, tmp_path / "m.onnx", calibration=calibration(2), method=method)
    assert info.details["method"] == method


def test_an_onnx_file_that_is_there_is_used(tmp_path: Path) -> None:
    model = Convnet().eval()
    single = OnnxExporter().export(model, IMAGE, tmp_path / "single.onnx", check=False)
    info = OnnxInt8Exporter().export(
        model, IMAGE, tmp_path / "int8.onnx", calibration=calibration(1), onnx_path=single.path
    )
    assert info.bytes > 0
    assert info.opset_version == single.opset_version


def test_what_cannot_be_quantised_is_refused_and_nothing_written(tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    exporter = OnnxInt8Exporter()
    for none in (None, [], [torch.zeros(0, 3, 12, 12)]):
        with pytest.raises(ExporterUsageError, match="calibration"):
            exporter.export(Convnet(), IMAGE, path, calibration=none)
    with pytest.raises(ExporterUsageError, match="magic"):
        exporter.export(Convnet(), IMAGE, path, calibration=calibration(1), method="magic")
    with pytest.raises(UnsupportedExportError):
        exporter.export(Refuses(), IMAGE, path, calibration=calibration(1))
    with pytest.raises(ExportCheckError, match="int8"):
        exporter.export(Convnet(), IMAGE, path, calibration=calibration(1), tolerance=1e-9)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(not TensorRTRTXExporter().is_available().ok, reason="tensorrt_rtx is not installed")
def test_tensorrt_builds_int8_engines(tmp_path: Path) -> None:
    model = Convnet().eval()
    whole = TensorRTRTXExporter().export(model, IMAGE, tmp_path / "whole.rtx", check=False)
    info = TensorRTRTXExporter().export(
        model, IMAGE, tmp_path / "m.rtx", precision="int8", calibration=calibration(1), check=False
    )
    assert info.precision == "int8"
    assert info.details["layers"] > whole.details["layers"], "quantisation is in the network that was parsed"
    assert info.path.stat().st_size == info.bytes > 0


def test_calibration_takes_as_many_samples_as_asked() -> None:
    batches = [(torch.zeros(8, 2), torch.zeros(8)) for _ in range(5)]
    assert [len(batch.tensors[0]) for batch in inputs_of(batches, 20)] == [8, 8, 4]
    assert sum(len(batch.tensors[0]) for batch in inputs_of(batches, 100)) == 40
