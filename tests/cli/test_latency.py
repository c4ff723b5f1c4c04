"""Latency on the command line: ``compress profile``, and budgets on the simulated device."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from compressor.cli import main

_MODEL = ["--model", "resnet20_cifar"]


def test_a_budget_needs_a_target_and_a_target_a_budget(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*_MODEL, "--budget-latency", "50%"]) == 2
    assert "--target" in capsys.readouterr().err
    assert main([*_MODEL, "--budget-flops", "50%", "--target", "simulated"]) == 2
    assert "--budget-latency" in capsys.readouterr().err


@pytest.mark.parametrize("target", ["onnxruntime-cup", "torch-cpu"])
def test_targets_that_cannot_serve_are_refused_before_any_work(
    target: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = ["--out", str(tmp_path / "out"), "--lut", str(tmp_path / "t")]
    assert main(["profile", *_MODEL, "--target", target]) == 2
    assert main([*_MODEL, "--weights", "none", "--budget-latency", "50%", "--target", target, *out]) == 2
    assert "onnxruntime-cpu" in capsys.readouterr().err


@pytest.mark.slow
def test_profile_then_compress_to_a_latency(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    where = ["--target", "simulated", "--threads", "1", "--lut", str(tmp_path / "lut.sqlite"), "--format", "json"]
    assert main(["profile", *_MODEL, "--max-points", "6", *where]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["finished"]
    assert found["measured"] > 0
    job = [*_MODEL, "--weights", "none", "--budget-latency", "60%", "--export", "none", "--out", str(tmp_path / "out")]
    assert main([*job, *where]) == 0
    report = json.loads(capsys.readouterr().out)
    (budget,) = report["budgets"]
    assert 0.9 * budget["limit"] < budget["reached"] <= budget["limit"]
    assert "--target simulated" in report["command"]
    assert report["latency_prediction"]["mean_error"] < 0.05
