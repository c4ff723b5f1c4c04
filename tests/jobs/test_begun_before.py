"""A job that an earlier version of the program began, and that was killed in its search, goes on."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from compressor.cli import main

BEGUN = Path(__file__).with_name("begun_before")
JOB = ["--model", "job_networks:plain", "--weights", "none", "--data", "digits", "--budget-flops", "50%"]
JOB += ["--search", "dnarch", "--train-epochs", "1", "--search-epochs", "60", "--finetune-epochs", "1"]
JOB += ["--export", "none", "--bench-seconds", "0"]


@pytest.mark.parametrize("learn", ["--learn", "--dnarch.learn"])
def test_it_goes_on(learn: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "begun"
    shutil.copytree(BEGUN, out)
    assert main([*JOB, learn, "width", "--out", str(out)]) == 0
    said = capsys.readouterr().err
    assert "train: 20 steps" not in said, "what was finished is not done again"
    assert "began this training otherwise (lr was 0.01, now 0.05" in said, "what was begun otherwise begins anew"
    assert "search: 1200 steps" in said
    report = json.loads((out / "report.json").read_text())
    assert report["budgets"][0]["reached"] <= report["budgets"][0]["limit"]


def test_another_job_is_refused_with_what_differs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "begun"
    shutil.copytree(BEGUN, out)
    assert main([*JOB, "--dnarch.learn", "width", "--dnarch.every", "3", "--out", str(out)]) == 2
    assert 'options was {"learn": ["width"]}, now {"learn": ["width"], "every": 3}' in capsys.readouterr().err
