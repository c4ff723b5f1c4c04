"""Commands that need no job: inspect, bench, export, report, models."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from compressor.cli import main
from compressor.graph.choices import CHOICES

FOUND = {
    "model": "CifarResNet",
    "macs": 41_000_000,
    "params": 270_000,
    "memory_bytes": 131_072,
    "groups": [
        {"name": "conv1", "size": 16, "units": 16, "layers": ["conv1", "bn1", "layer1.0.conv2", "layer1.0.bn2"]}
    ],
    "blocks": [{"name": "layer1.1"}],
    "layers": [
        {"name": f"layer{i}", "op": "conv2d", "macs": 1000 + i, "params": 10, "in_channels": 3, "out_channels": 16}
        for i in range(60)
    ],
    "choices": [],
    "fixed": [{"place": "layer2.0", "operator": "pad", "reason": "zeros on both sides", "channels": 8}],
    "seconds": 0.01,
}


@pytest.fixture
def graph(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Replaces tracing; remembers what it was called with."""
    seen: dict[str, Any] = {}

    def capture(model: Any, example_inputs: Any, **options: Any) -> str:
        assert options.pop("example_kwargs") == {}
        seen.update(options, shape=tuple(example_inputs[0].shape))
        return "graph"

    package, describing = ModuleType("compressor.graph"), ModuleType("compressor.search.inspection")
    package.capture = capture  # type: ignore[attr-defined]
    describing.describe = lambda graph: dict(FOUND)  # type: ignore[attr-defined]
    finding = ModuleType("compressor.graph.choices")
    finding.CHOICES = CHOICES  # type: ignore[attr-defined]
    finding.add_choices = lambda model, graph, kinds, told: None  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "compressor.graph", package)
    monkeypatch.setitem(sys.modules, "compressor.graph.choices", finding)
    monkeypatch.setitem(sys.modules, "compressor.search.inspection", describing)
    return seen


def test_inspect_text(graph: dict[str, Any], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["inspect", "--model", "resnet20_cifar", "--exclude", "linear", "--input-shape", "3,16,16"]) == 0
    out = capsys.readouterr().out
    for part in ("41 M", "270 k", "conv1, bn1, layer1.0.conv2, and 1 more", "layer1.1", "zeros on both sides"):
        assert part in out
    assert "... and 20 more" in out
    assert graph == {"include": (), "exclude": ("linear",), "shape": (1, 3, 16, 16)}


def test_inspect_shows_where_to_pool(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["inspect", "--model", "resnet20_cifar", "--pooling", "-q"]) == 0
    out = " ".join(capsys.readouterr().out.split())
    for part in (
        "10 layers at 3 resolutions: 36 configurations, the network's is [4, 3, 3]",
        "layer2.0.conv1, layer2.0.stride",
    ):
        assert part in out
    assert main(["inspect", "--model", "resnet20_cifar", "--pooling", "--format", "json", "-q"]) == 0
    found = json.loads(capsys.readouterr().out)["stages"]
    assert found["configurations"] == 36
    assert found["default"] == [4, 3, 3]
    assert found["reductions"][1]["before"] == "layer3.0"
    assert main(["inspect", "--model", "resnet18", "--pooling", "--input-shape", "3,24,24", "-q"]) == 0
    assert "cannot be chosen: its inputs are too small" in capsys.readouterr().out


def test_inspect_all_and_json(graph: dict[str, Any], capsys: pytest.CaptureFixture[str]) -> None:
    main(["inspect", "--model", "resnet20_cifar", "--all"])
    assert "layer59" in capsys.readouterr().out
    assert main(["inspect", "--model", "resnet20_cifar", "--format", "json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["schema_version"] == 1
    assert document["fixed"] == FOUND["fixed"]
    assert document["input_shape"] == [3, 32, 32]


def test_bench_on_the_simulated_target(capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["bench", "resnet20_cifar", *("--model", "resnet32_cifar"), "--quiet"]
    arguments += ["--target", "simulated", "--seconds", "1"]
    assert main(arguments) == 0
    out = capsys.readouterr().out
    assert "resnet32_cifar" in out
    assert "baseline" in out
    assert main([*arguments, "--format", "json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["ratios"]["resnet32_cifar"]["value"] > 1
    assert main([*arguments, "--format", "json", "--input-shape", "1,16,16"]) == 0
    smaller = json.loads(capsys.readouterr().out)
    assert smaller["timings"]["resnet20_cifar"]["median_ms"] < document["timings"]["resnet20_cifar"]["median_ms"]


def test_bench_unknown_target(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "--model", "resnet20_cifar", "--target", "onnxruntime"]) == 2
    assert "onnxruntime-cpu" in capsys.readouterr().err


def test_export_writes_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "tiny_net_for_test.py").write_text("from torch import nn\ndef make(): return nn.Linear(4, 2)\n")
    monkeypatch.syspath_prepend(tmp_path)
    arguments = ["export", "--model", "tiny_net_for_test:make", "--input-shape", "4", "--to", "torch-export", "-q"]
    arguments += ["--out", str(tmp_path / "new")]
    assert main(arguments) == 0
    assert "tiny_net_for_test-make" in capsys.readouterr().out
    assert len(list((tmp_path / "new").iterdir())) == 1
    assert main(arguments) == 2
    assert "--force" in capsys.readouterr().err
    assert main([*arguments, "--force", "--format", "json"]) == 0
    (file,) = json.loads(capsys.readouterr().out)["files"]
    assert Path(file["path"]).stat().st_size == file["bytes"]


def test_report_reads_what_was_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from compressor.report import Report

    saved = Report(model="resnet18").to_json()
    (tmp_path / "report.json").write_text(json.dumps(saved))
    assert main(["report", str(tmp_path), "--html", str(tmp_path / "again.html"), "-q"]) == 0
    assert "resnet18" in capsys.readouterr().out
    assert "<html" in (tmp_path / "again.html").read_text()
    assert main(["report", str(tmp_path / "report.json"), "--format", "json"]) == 0
    assert json.loads(capsys.readouterr().out) == saved


@pytest.mark.parametrize("content", ["{", '{"schema_version": 99}', "[]", '{"a": 1}'])
def test_damaged_reports_are_usage_errors(tmp_path: Path, capsys: pytest.CaptureFixture[str], content: str) -> None:
    (tmp_path / "report.json").write_text(content)
    assert main(["report", str(tmp_path)]) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_models(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["models", "resnet2*"]) == 0
    assert capsys.readouterr().out == "resnet20_cifar\n"


def test_models_of_timm_and_a_job_on_one(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("timm")
    assert main(["models", "timm:resnet10*"]) == 0
    assert "timm:resnet10t" in capsys.readouterr().out.split()
    arguments = ["--weights", "none", "--input-shape", "3x64x64", "--budget-flops", "50%", "--format", "json"]
    arguments += ["--export", "none"]
    assert main(["--model", "timm:resnet10t", *arguments, "--out", str(tmp_path / "out")]) == 0
    report = json.loads(capsys.readouterr().out)
    (budget,) = report["budgets"]
    assert budget["reached"] <= budget["limit"]
    assert main(["--model", "timm:resnet10", *arguments, "--out", str(tmp_path / "other")]) == 2
    assert "timm:resnet10t" in capsys.readouterr().err
