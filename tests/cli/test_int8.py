"""Int8 on the command line: in the main job, and of a folder it wrote; accuracy before and after."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from compressor.cli import main
from compressor.models import artifact


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A job on digits that exported int8, too."""
    out = tmp_path_factory.mktemp("int8") / "out"
    job = ["--model", "job_networks:plain", "--weights", "none", "--data", "digits", "--search", "oneshot"]
    epochs = ["--train-epochs", "20", "--finetune-epochs", "0", "--bench-seconds", "0.2"]
    assert main([*job, *epochs, "--budget-flops", "80%", "--export", "onnx,onnx-int8", "--out", str(out)]) == 0
    return out


def test_the_report_has_accuracy_and_latency_before_and_after(folder: Path) -> None:
    report = artifact.load_report(folder)
    found = report.quantisation
    assert found is not None
    assert report.accuracy is not None
    assert report.accuracy.final is not None
    assert found.before == pytest.approx(report.accuracy.final, abs=0.002), "the file computes what the network does"
    assert found.after is not None
    assert abs(found.after - report.accuracy.final) < 0.05
    assert report.accuracy.final > 0.6, "an untrained network would prove nothing"
    assert found.bytes_before == (folder / "model.onnx").stat().st_size
    assert found.bytes_after == (folder / "model.int8.onnx").stat().st_size
    assert found.latency is not None
    assert found.latency.compressed["median_ms"] > 0
    assert "Int8" in (folder / "report.html").read_text(encoding="utf-8")


@pytest.mark.parametrize("command", ["inspect", "export"])
def test_a_folder_alone_stands_for_its_model(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], command: str
) -> None:
    rest = ["--trust-factories", "job_networks", "--format", "json", "-q"]
    if command == "export":
        rest += ["--out", str(tmp_path), "--force"]
    found = []
    for named in ([str(folder)], ["--model", str(folder)]):
        assert main([command, *named, *rest]) == 0
        found.append(json.loads(capsys.readouterr().out))
    for document in found:
        document.pop("seconds", None)
        document["files"] = [(file["path"], file["bytes"]) for file in document.get("files", ())]
    assert found[0] == found[1]
    assert main([command]) == 2
    assert "pass --model M, or a saved folder" in capsys.readouterr().err


def test_the_text_says_what_int8_costs(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["report", str(folder)]) == 0
    assert "Int8\n" in capsys.readouterr().out


def test_a_folder_is_exported_in_int8_with_its_accuracy(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    export = ["export", "--model", str(folder), "--to", "onnx", "--precision", "int8", "--out", str(tmp_path)]
    export += ["--trust-factories", "job_networks"]
    assert main([*export, "--data", "digits", "--format", "json"]) == 0
    document = json.loads(capsys.readouterr().out)
    (file,) = document["files"]
    assert (file["format"], file["precision"]) == ("onnx-int8", "int8")
    assert Path(file["path"]).is_file()
    report = artifact.load_report(folder)
    assert report.quantisation is not None
    assert document["int8"]["after"] == pytest.approx(report.quantisation.after, abs=0.02)


def test_int8_without_data_is_refused_before_any_work(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = ["--model", "job_networks:plain", "--weights", "none", "--out", str(tmp_path / "out")]
    assert main([*model, "--budget-flops", "60%", "--export", "onnx-int8"]) == 2
    assert "--data" in capsys.readouterr().err
    assert main(["export", *model, "--precision", "int8"]) == 2
    assert "--data" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_precision_that_a_format_does_not_have_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["export", "--model", "job_networks:plain", "--to", "torch-export", "--precision", "int8"]) == 2
    assert "torch-export cannot be written in int8" in capsys.readouterr().err
