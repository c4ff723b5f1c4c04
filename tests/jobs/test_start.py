"""Jobs that begin at what an earlier one left."""

from __future__ import annotations

import json
import shlex
from pathlib import Path

import pytest
import torch

import compressor
from compressor.cli import main
from compressor.models import artifact
from compressor.search import METHODS
from tests.cli.job_networks import plain

BASE = shlex.split(
    "--model job_networks:plain --weights none --data digits --train-epochs 1 --search-epochs 1 --finetune-epochs 1 "
    "--export none --bench-seconds 0"
)


def job(out: Path, *options: str) -> int:
    return main([*BASE, "--out", str(out), *options])


@pytest.fixture
def many(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(METHODS._targets, "many", "many_method:METHOD")


@pytest.mark.parametrize(
    ("options", "larger", "smaller"),
    [
        (["--search", "oneshot"], 90, 60),
        (["--search", "figs", "--distill", "0.5"], 90, 60),
        (["--search", "dnarch", "--learn", "width,kernel"], 90, 60),
        (["--search", "dnarch", "--learn", "width", "--dnarch.least-steps", "0"], 90, 60),
        (["--search", "dash", "--kernel-sizes", "3,5", "--dilations", "1"], 240, 150),
    ],
)
def test_a_second_search_is_told_of_against_the_model(
    options: list[str], larger: int, smaller: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    assert job(first, *options, "--budget-flops", f"{larger}%") == 0
    start = ["--start", str(first), *options]
    assert job(second, *start, "--budget-flops", f"{smaller}%") == 0, capsys.readouterr().err
    report, whole = artifact.load_report(second), sum(p.numel() for p in plain().parameters())
    assert report.costs[1].original == whole
    assert report.budgets[0].original == artifact.load_report(first).budgets[0].original
    assert report.budgets[0].met
    assert report.budgets[0].limit == pytest.approx(smaller / 100 * report.budgets[0].original)
    assert report.trained_epochs > artifact.load_report(first).trained_epochs or options[1] == "oneshot"
    loaded = compressor.load(second, model=plain())
    assert sum(p.numel() for p in loaded.parameters()) == report.costs[1].reached
    changed = {(c.module, c.attribute): c.before for c in report.attributes_changed}
    assert changed.get(("first", "out_channels"), 16) == 16, "what the model itself had"
    again = shlex.split(report.command)
    assert again[again.index("--start") + 1] == str(first)
    capsys.readouterr()
    assert job(second, *start, "--budget-flops", f"{smaller}%") == 0
    assert "is complete already" in capsys.readouterr().err


def test_where_the_folders_lie_is_no_other_job(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first, second = tmp_path / "a" / "first", tmp_path / "a" / "second"
    assert job(first, "--search", "oneshot", "--budget-flops", "80%") == 0
    assert job(second, "--search", "oneshot", "--budget-flops", "50%", "--start", str(first)) == 0
    moved = (tmp_path / "a").rename(tmp_path / "b")
    options = ["--search", "oneshot", "--budget-flops", "50%", "--start", str(moved / "first")]
    capsys.readouterr()
    assert job(moved / "second", *options) == 0
    assert "is complete already" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--start", "nowhere", "--search", "oneshot"], "nowhere"),
        (["--start", "FIRST", "--search", "dash,figs"], "leave start out"),
        (["--start", "FIRST", "--search", "oneshot", "--model", "resnet20_cifar"], "Plain"),
    ],
)
def test_what_cannot_be_begun_at(
    options: list[str], said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first = tmp_path / "first"
    assert job(first, "--search", "oneshot", "--budget-flops", "80%") == 0
    options = [str(first) if word == "FIRST" else word for word in options]
    assert job(tmp_path / "out", "--budget-flops", "50%", *options) == 2
    assert said in capsys.readouterr().err


def test_networks_of_another_search_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str], many: None) -> None:
    first = tmp_path / "first"
    assert job(first, "--search", "many", "--budget-flops", "90%", "--search-epochs", "0") == 0
    common = ["--start", str(first), "--search", "many", "--search-epochs", "0", "--budget-flops", "50%"]
    assert job(tmp_path / "out", *common, "--exclude", "middle") == 2
    assert "were found with exclude []" in capsys.readouterr().err
    assert job(tmp_path / "good", *common, "--train-epochs", "0") == 0
    assert (tmp_path / "good" / ".job" / "stages" / "finetune.json").is_file(), "fine-tuned where that is asked for"
    front = json.loads((first / "front.json").read_text())
    front["front"]["rows"][0]["found"] = 99
    (first / "front.json").write_text(json.dumps(front))
    assert job(tmp_path / "other", *common) == 2
    assert "does not hold together" in capsys.readouterr().err


@pytest.mark.slow
def test_a_sweep_of_a_supernet(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"
    small = shlex.split("--supernet.population 6 --supernet.generations 1 --supernet.scored-on 100")
    model = shlex.split("--model job_networks:plain --weights none --data digits --train-epochs 1 --search-epochs 1")
    asked = ["sweep", *model, "--export", "none", *small, "--budgets", "flops=40%,90%", "--out", str(out)]
    assert main(asked) == 0, capsys.readouterr().err
    for name, share in (("flops-40pct", 0.4), ("flops-90pct", 0.9)):
        report = artifact.load_report(out / name)
        assert report.search == "supernet"
        assert report.budgets[0].reached <= share * report.budgets[0].original
        picked = ["pick", str(out), "--budget-flops", f"{share:.0%}", "--export", "none"]
        trust = ["--trust-factories", "job_networks:plain"]
        assert main([*picked, *trust, "--out", str(tmp_path / name)]) == 0
        x = torch.randn(2, 1, 8, 8)
        one, other = (compressor.load(place, model=plain())(x) for place in (out / name, tmp_path / name))
        assert torch.equal(one, other)
    assert "Search space over training" in (out / "front.html").read_text()
