"""``compress targets``."""

from __future__ import annotations

import json

import pytest

from compressor.cli import main
from profilers.registry import names


def test_every_target_is_listed_with_a_reason_where_it_cannot_be_used(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["targets", "--format", "json"]) == 0
    found = json.loads(capsys.readouterr().out)["targets"]
    assert [entry["target"] for entry in found] == names()
    assert {"onnxruntime-cpu", "simulated"} <= {entry["target"] for entry in found if entry["available"]}
    assert all(entry["reason"] for entry in found if not entry["available"])


def test_as_text(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["targets"]) == 0
    assert "onnxruntime-cpu" in capsys.readouterr().out
