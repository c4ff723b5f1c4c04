from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from torch import nn

from compressor.architecture.architecture import Architecture
from compressor.deploy import timing as benchmark
from compressor.deploy.deliver import deliver
from compressor.deploy.exports import require_formats
from compressor.deploy.timing import bench, compare, table
from compressor.errors import CompressorError
from compressor.models import artifact
from compressor.report import Report
from exporters import registry as formats
from exporters.base import Availability
from exporters.errors import ExporterUsageError

IMAGE = torch.zeros(1, 3, 16, 16)


def net(width: int) -> nn.Module:
    """A small network of a given width."""
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, width, 3),
        nn.ReLU(),
        nn.Conv2d(width, width, 3),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(width, 4),
    ).eval()


class Refuses(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * 2 if x.sum() > 1e6 else x  # depends on values, which no exporter can follow


def test_any_number_of_models_side_by_side() -> None:
    found = bench({str(w): net(w) for w in (64, 32, 16)}, IMAGE, target="simulated", seconds=0.2)
    assert found.baseline == "64"
    assert 1 > found.ratios["32"].value > found.ratios["16"].value
    assert json.loads(json.dumps(found.to_json()))["timings"]["64"]["batch"] == 1
    lines = table(found).splitlines()
    assert "simulated" in lines[0]
    assert lines[1].startswith("times in ms")
    assert [line.split()[0] for line in lines[2:]] == ["64", "32", "16"]
    assert "faster" in lines[3]


def test_compare_gives_the_report_its_entry() -> None:
    latency = compare(net(64), net(8), IMAGE, target="simulated", seconds=0.2, batch=4)
    assert latency.verdict == "faster"
    assert latency.original["batch"] == 4
    assert latency.speedup > 2


def test_on_a_real_runtime_from_file_folder_and_module(tmp_path: Path) -> None:
    model = net(8)
    architecture = Architecture("Sequential", {name: list(v.shape) for name, v in model.named_parameters()})
    artifact.save_model(tmp_path / "folder", model, architecture, example_inputs=IMAGE)
    delivery = deliver(net(16), model, IMAGE, tmp_path / "folder", seconds=0.2, threads=1)
    onnx = tmp_path / "folder" / "model.onnx"
    found = bench({"file": onnx, "folder": tmp_path / "folder", "module": model}, IMAGE, seconds=0.2, threads=1)
    assert set(found.timings) == {"file", "folder", "module"}
    assert benchmark.resolve(tmp_path / "folder", None, "onnxruntime-cpu")[0] == onnx
    assert delivery.latencies[0].original["threads"] == 1


def test_delivery_fills_the_report(tmp_path: Path) -> None:
    delivery = deliver(
        net(32),
        net(8),
        IMAGE,
        tmp_path,
        formats=("torch-export", "onnx"),
        targets=("simulated", "torch-cpu"),
        seconds=0.4,
    )
    assert [file.path for file in delivery.files] == ["model.onnx", "model.pt2"]
    assert all(file.error is not None and file.error < 1e-4 for file in delivery.files)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model.onnx", "model.pt2"]
    assert delivery.sizes[0].original_bytes > delivery.sizes[0].compressed_bytes
    assert [latency.target for latency in delivery.latencies] == ["simulated", "torch-cpu"]
    assert delivery.latencies[0].verdict == "faster"
    assert set(delivery.stage_seconds) == {"export", "benchmark"}
    assert not delivery.warnings
    report = Report("net", files=delivery.files, sizes=delivery.sizes, latencies=delivery.latencies)
    assert Report.from_json(json.loads(json.dumps(report.to_json()))) == report


def test_a_network_no_format_takes_is_warned_about_and_still_timed(tmp_path: Path) -> None:
    delivery = deliver(Refuses(), Refuses(), IMAGE, tmp_path, targets=("onnxruntime-cpu", "torch-cpu"), seconds=0.2)
    assert not delivery.files
    assert [text.split(".")[0] for text in delivery.warnings] == [
        "Not exported to onnx",
        "Latency was not measured on onnxruntime-cpu",
    ]
    assert [latency.target for latency in delivery.latencies] == ["torch-cpu"]


def test_a_network_that_cannot_be_exported_is_timed_as_it_is(tmp_path: Path) -> None:
    delivery = deliver(Refuses(), Refuses(), IMAGE, tmp_path, seconds=0.2, instead="torch-cpu")
    assert [latency.target for latency in delivery.latencies] == ["torch-cpu"]
    assert delivery.latencies[0].original["batch"] == 1
    assert len(delivery.warnings) == 2
    nothing = deliver(Refuses(), Refuses(), IMAGE, tmp_path, seconds=0.2)
    assert not nothing.latencies


def test_files_are_timed_in_turn(tmp_path: Path) -> None:
    for width in (8, 32):
        formats.get("onnx").export(net(width), IMAGE, tmp_path / f"{width}.onnx", check=False)
    paths = [str(tmp_path / f"{width}.onnx") for width in (32, 8)]
    found = bench({path: path for path in paths}, target="simulated", seconds=0.1)
    assert found.to_json()["baseline"] == paths[0]
    assert found.to_json()["ratios"][paths[1]]["verdict"] == "faster"
    assert paths[1] in table(found)
    with pytest.raises(CompressorError, match="Unknown model"):
        bench({"no_such_network": "no_such_network"}, target="simulated")


def test_what_cannot_work_is_said_at_the_start(monkeypatch: pytest.MonkeyPatch) -> None:
    require_formats(["onnx", "torch-export"])
    with pytest.raises(ExporterUsageError, match="Unknown export format"):
        require_formats(["onnx", "tflite"])
    monkeypatch.setattr("exporters.formats.onnx.OnnxExporter.is_available", lambda self: Availability(False, "gone"))
    with pytest.raises(CompressorError, match="onnx cannot be written here: gone"):
        require_formats(["onnx"])
