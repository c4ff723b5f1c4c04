from __future__ import annotations

from pathlib import Path

import pytest
import torch

from exporters.errors import ExporterUsageError, MissingPackageError, UnsupportedExportError
from exporters.formats.onnx import OnnxExporter
from exporters.formats.openvino import OpenVinoExporter
from tests.exporters.export_models import Convnet, FixedBatch, ManyOutputs, Refuses, TwoInputs

IMAGE = torch.zeros(1, 3, 12, 12)
installed = pytest.mark.skipif(not OpenVinoExporter().is_available().ok, reason="openvino is not installed")


@installed
@pytest.mark.parametrize(("precision", "error"), [("fp32", 1e-5), ("fp16", 5e-3)])
def test_graph_and_weights_checked_on_several_batches(precision: str, error: float, tmp_path: Path) -> None:
    info = OpenVinoExporter().export(Convnet(64), IMAGE, tmp_path / "model.xml", precision=precision)
    assert [check.batch for check in info.checks] == [1, 2, 5]
    assert info.rel_error is not None
    assert info.rel_error < error
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model.bin", "model.xml"]
    assert info.bytes == sum(path.stat().st_size for path in tmp_path.iterdir())
    assert info.details["operations"] > 5


@installed
def test_half_precision_halves_the_weights(tmp_path: Path) -> None:
    for precision in ("fp32", "fp16"):
        OpenVinoExporter().export(Convnet(64), IMAGE, tmp_path / f"{precision}.xml", precision=precision, check=False)
    full, half = ((tmp_path / f"{precision}.bin").stat().st_size for precision in ("fp32", "fp16"))
    assert 0.45 < half / full < 0.6


@installed
def test_other_inputs_and_outputs(tmp_path: Path) -> None:
    info = OpenVinoExporter().export(ManyOutputs("dict"), torch.randn(1, 6), tmp_path / "a.xml")
    assert len(info.checks) == 3
    inputs = (torch.tensor([[0, 6, 3]]), torch.ones(1, 3))
    assert len(OpenVinoExporter().export(TwoInputs(), inputs, tmp_path / "b.xml").checks) == 3


@installed
def test_starts_from_a_given_onnx_file(tmp_path: Path) -> None:
    model = Convnet()
    onnx = OnnxExporter().export(
        model, torch.zeros(2, 3, 12, 12), tmp_path / "m.onnx", dynamic_batch=False, check=False
    )
    info = OpenVinoExporter().export(model, torch.zeros(2, 3, 12, 12), tmp_path / "m.xml", onnx_path=onnx.path)
    assert [check.batch for check in info.checks] == [2]
    assert not info.dynamic_batch
    (tmp_path / "junk.onnx").write_bytes(b"\xff\xffjunk")
    with pytest.raises(ExporterUsageError, match="no ONNX file"):
        OpenVinoExporter().export(model, IMAGE, tmp_path / "m.xml", onnx_path=tmp_path / "junk.onnx")


@installed
def test_static_batch_and_refusal(tmp_path: Path) -> None:
    info = OpenVinoExporter().export(FixedBatch(), torch.randn(3, 6), tmp_path / "a.xml")
    assert not info.dynamic_batch
    assert info.notes
    with pytest.raises(UnsupportedExportError):
        OpenVinoExporter().export(Refuses(), IMAGE, tmp_path / "b.xml")
    with pytest.raises(ExporterUsageError, match="fp32 or fp16, not 'int4'"):
        OpenVinoExporter().export(Convnet(), IMAGE, tmp_path / "b.xml", precision="int4")
    assert not (tmp_path / "b.xml").exists()


def test_missing_package_names_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("exporters.base.importlib.util.find_spec", lambda name: None)
    with pytest.raises(MissingPackageError, match=r"pip install 'compressor\[openvino\]'"):
        OpenVinoExporter().export(Convnet(), IMAGE, tmp_path / "model.xml")
