from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from torch import nn

import exporters.formats.onnx
import exporters.formats.onnx_write
from exporters.errors import ExportCheckError, ExporterUsageError, UnsupportedExportError
from exporters.formats.onnx import OnnxExporter
from tests.exporters.export_models import AnyNumber, Chatty, Convnet, FixedBatch, ManyOutputs, Refuses, TwoInputs

IMAGE = torch.zeros(1, 3, 12, 12)  # only its shape may matter


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.manual_seed(0)


def export(model: nn.Module, inputs: object, path: Path, **options: object) -> object:
    return OnnxExporter().export(model, inputs, path, **options)  # type: ignore[arg-type]


def test_one_checked_file_with_dynamic_batch(tmp_path: Path) -> None:
    info = OnnxExporter().export(Convnet(), IMAGE, tmp_path / "model.onnx")
    assert info.dynamic_batch
    assert not info.notes
    assert [check.batch for check in info.checks] == [1, 2, 5]
    assert info.rel_error is not None
    assert info.rel_error <= 1e-5
    assert info.checked_with is not None
    assert info.checked_with.startswith("onnxruntime ")
    assert [file.name for file in tmp_path.iterdir()] == ["model.onnx"]
    assert info.bytes == (tmp_path / "model.onnx").stat().st_size
    graph = onnx.load(tmp_path / "model.onnx").graph
    assert [value.name for value in graph.input] == ["input"]
    assert [value.name for value in graph.output] == ["output"]
    assert graph.input[0].type.tensor_type.shape.dim[0].dim_param == "batch"


def test_file_tells_nothing_about_the_machine(tmp_path: Path) -> None:
    OnnxExporter().export(Convnet(), IMAGE, tmp_path / "model.onnx")
    content = (tmp_path / "model.onnx").read_bytes()
    assert str(Path(torch.__file__).parent).encode() not in content
    assert str(Path(__file__).parent).encode() not in content


@pytest.mark.parametrize(
    ("kind", "names"),
    [
        ("tuple", ["output_0", "output_1"]),
        ("named", ["logits", "features"]),
        ("dict", ["out", "aux"]),
        ("ordered", ["out", "aux"]),
        ("nested", ["out", "more_0", "more_1_0"]),
    ],
)
def test_every_output_is_named_and_compared(kind: str, names: list[str], tmp_path: Path) -> None:
    info = OnnxExporter().export(ManyOutputs(kind), torch.randn(2, 6), tmp_path / "model.onnx")
    assert info.rel_error is not None
    assert info.rel_error <= 1e-5
    assert [value.name for value in onnx.load(tmp_path / "model.onnx").graph.output] == names


def test_several_inputs_keep_integers_in_range(tmp_path: Path) -> None:
    tokens, weights = torch.tensor([[0, 6, 3]]), torch.ones(1, 3)
    info = OnnxExporter().export(TwoInputs(), (tokens, weights), tmp_path / "model.onnx")
    assert info.dynamic_batch
    assert len(info.checks) == 3


@pytest.mark.parametrize("count", [1, 2, 3])
def test_variable_arguments_keep_a_dynamic_batch(count: int, tmp_path: Path) -> None:
    info = OnnxExporter().export(AnyNumber(), tuple(torch.ones(1, 4) for _ in range(count)), tmp_path / "model.onnx")
    assert info.dynamic_batch
    assert not info.notes


def test_falls_back_to_a_static_batch_with_the_reason(tmp_path: Path) -> None:
    info = OnnxExporter().export(FixedBatch(), torch.randn(3, 6), tmp_path / "model.onnx")
    assert not info.dynamic_batch
    assert [check.batch for check in info.checks] == [3]
    assert len(info.notes) == 1
    assert "only three at a time" in info.notes[0]


def test_static_batch_on_request(tmp_path: Path) -> None:
    info = OnnxExporter().export(Convnet(), torch.randn(4, 3, 12, 12), tmp_path / "m.onnx", dynamic_batch=False)
    assert onnx.load(info.path).graph.input[0].type.tensor_type.shape.dim[0].dim_value == 4


@pytest.mark.parametrize("opset", [18, 21])
def test_opset_version_is_honoured(opset: int, tmp_path: Path) -> None:
    info = OnnxExporter().export(Convnet(), IMAGE, tmp_path / "model.onnx", opset_version=opset)
    assert info.opset_version == opset
    assert onnx.load(info.path).opset_import[0].version == opset


def test_model_is_left_as_it_was(tmp_path: Path) -> None:
    model = Convnet().train()
    model.body.eval()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    OnnxExporter().export(model, IMAGE, tmp_path / "model.onnx")
    assert model.training
    assert not model.body.training
    assert model.dropout.training
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_stdout_stays_clean(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    OnnxExporter().export(Chatty(), IMAGE, tmp_path / "model.onnx")
    assert capfd.readouterr().out == ""


def test_forward_that_raises_is_named_and_writes_nothing(tmp_path: Path) -> None:
    with pytest.raises(UnsupportedExportError, match=r"Refuses .*this forward always raises") as caught:
        OnnxExporter().export(Refuses(), IMAGE, tmp_path / "model.onnx")
    assert "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_wrong_numbers_are_never_published(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "model.onnx").write_text("the old file")
    honest = exporters.formats.onnx.onnxruntime_run

    def lying(path: Path) -> object:
        run = honest(path)
        return lambda inputs: [np.asarray(value) * 1.01 for value in run(inputs)]

    monkeypatch.setattr(exporters.formats.onnx, "onnxruntime_run", lying)
    with pytest.raises(ExportCheckError, match=r"differs from PyTorch by 1\.0e-02"):
        OnnxExporter().export(Convnet(), IMAGE, tmp_path / "model.onnx", dynamic_batch=False)
    assert (tmp_path / "model.onnx").read_text() == "the old file"
    assert len(list(tmp_path.iterdir())) == 1


def test_weights_move_beside_the_graph_above_the_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exporters.formats.onnx_write, "SINGLE_FILE_BYTES", 100)
    info = OnnxExporter().export(Convnet(64), IMAGE, tmp_path / "model.onnx")
    assert [file.name for file in info.files] == ["model.onnx", "model.onnx.data"]
    assert len(info.checks) == 3
    onnx.checker.check_model(str(info.path))
    monkeypatch.undo()
    assert len(OnnxExporter().export(Convnet(64), IMAGE, tmp_path / "model.onnx").files) == 1


def test_inputs_that_are_no_tensors(tmp_path: Path) -> None:
    with pytest.raises(ExporterUsageError, match="holds str, int"):
        export(Convnet(), ("a", 1), tmp_path / "model.onnx")
    with pytest.raises(ExporterUsageError, match="holds nothing"):
        export(Convnet(), (), tmp_path / "model.onnx")


def test_info_is_json(tmp_path: Path) -> None:
    import json

    info = OnnxExporter().export(Convnet(), IMAGE, tmp_path / "model.onnx")
    found = json.loads(json.dumps(info.to_json()))
    assert found["path"] == str(info.path)
    assert found["checks"][0]["batch"] == 1
