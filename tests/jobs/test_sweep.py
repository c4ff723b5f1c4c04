"""Sweeps by the command line: points are jobs, hold their budgets, and what is done is not done again."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import Any

import pytest
import torch

import compressor
from compressor.cli import main
from compressor.jobs.config import JobConfig
from compressor.jobs.sweeps.outcome import SweepDocument
from compressor.models import artifact
from compressor.search import METHODS
from tests.cli.job_networks import plain

BASE = shlex.split(
    "--model job_networks:plain --weights none --data digits --train-epochs 1 --search-epochs 1 --finetune-epochs 1 "
    "--export none"
)
SWEEP = ["sweep", *BASE, "--search", "oneshot"]
WITHOUT_DATA = shlex.split(
    "sweep --model job_networks:plain --input-shape 1,8,8 --weights none --export none --search oneshot"
)
FILES = ("architecture.json", "model.safetensors")


@pytest.fixture
def many(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(METHODS._targets, "many", "many_method:METHOD")


def run(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    assert main([*arguments, "--format", "json"]) == 0, capsys.readouterr().err
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    return found


def bits(folder: Path) -> list[bytes]:
    return [(folder / name).read_bytes() for name in FILES]


def test_a_sweep_from_large_to_small(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"
    found = run([*SWEEP, "--budgets", "flops=30%,60%,90%", "--out", str(out)], capsys)
    assert found["kind"] == "sweep"
    assert found["finished"]
    names = [point["name"] for point in found["points"]]
    assert names == ["flops-90pct", "flops-60pct", "flops-30pct"]
    assert [point["start"] for point in found["points"]] == [None, "flops-90pct", "flops-60pct"]
    original = found["fronts"][0]["original"]["flops"]
    for point in found["points"]:
        report = artifact.load_report(out / point["name"])
        assert report.costs[0].original == original, "costs are shares of the first original's"
        assert all(budget.met for budget in report.budgets)
        assert point["costs"]["flops"] <= float(point["budgets"]["flops"][:-1]) / 100 * original
        assert report.accuracy is not None
        assert report.accuracy.before == artifact.load_report(out / names[0]).accuracy.before  # type: ignore[union-attr]
        loaded = compressor.load(out / point["name"], model=plain())
        assert loaded(torch.randn(2, 1, 8, 8)).shape == (2, 10)
        kept = sum(p.numel() for p in loaded.parameters())
        assert kept == report.costs[1].reached, "the whole architecture applies to a fresh original"
    asked = json.loads((out / "sweep.json").read_text())
    assert [point["name"] for point in asked["points"]] == names
    assert len(asked["fingerprint"]) == 64
    assert "<svg" in (out / "front.svg").read_text()
    page = (out / "front.html").read_text()
    assert "flops-60pct" in page
    assert "http" not in page.replace("http-equiv", "")
    trained = [out / name / ".job" / "stages" for name in names]
    weights = [(trained[0] / "train.safetensors"), (trained[1] / "original.train.safetensors")]
    assert weights[0].read_bytes() == weights[1].read_bytes(), "the original is trained once"


def test_who_beats_whom(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"
    found = run([*SWEEP, "--budgets", "flops=30%,60%", "--seeds", "0,1", "--out", str(out)], capsys)
    points = {point["name"]: point for point in found["points"]}
    assert set(points) == {f"flops-{b}pct-seed{s}" for b in (30, 60) for s in (0, 1)}
    for point in points.values():
        better = [
            other
            for other in points.values()
            if other["score"] >= point["score"]
            and other["costs"]["flops"] <= point["costs"]["flops"]
            and (other["score"], other["costs"]["flops"]) != (point["score"], point["costs"]["flops"])
        ]
        assert (point["dominated_by"] is None) == (not better)
        if better:
            assert point["dominated_by"] in {other["name"] for other in better}
    main([*SWEEP, "--budgets", "flops=30%,60%", "--seeds", "0,1", "--out", str(out)])
    said = capsys.readouterr()
    assert "is complete already" in said.err
    assert sum(f"beaten by {p['dominated_by']}" in said.out for p in points.values() if p["dominated_by"]) > 0


def test_a_cold_point_is_what_a_job_gives(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"
    run([*SWEEP, "--cold", "--budgets", "flops=40%,80%", "--out", str(out)], capsys)
    for share in (40, 80):
        alone = tmp_path / str(share)
        job = [*BASE, "--search", "oneshot", "--bench-seconds", "0", "--budget-flops", f"{share}%", "--out", str(alone)]
        assert main(job) == 0
        assert bits(alone) == bits(out / f"flops-{share}pct")
    capsys.readouterr()


def test_two_workers_give_what_one_gives(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    asked = ["sweep", *BASE, "--methods", "oneshot,figs", "--budgets", "flops=40%,80%"]
    rows = []
    for workers in ("1", "2"):
        out = tmp_path / workers
        found = run([*asked, "--workers", workers, "--out", str(out)], capsys)
        rows.append([{k: v for k, v in point.items() if k != "seconds"} for point in found["points"]])
    assert rows[0] == rows[1]
    for point in rows[0]:
        assert bits(tmp_path / "1" / point["name"]) == bits(tmp_path / "2" / point["name"])


def test_what_is_done_stays_and_what_is_damaged_is_done_again(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    asked = [*SWEEP, "--budgets", "flops=40%,80%", "--out", str(out)]
    first = run(asked, capsys)
    before = {name: bits(out / name) for name in ("flops-40pct", "flops-80pct")}
    (out / "flops-40pct" / "model.safetensors").write_bytes(b"nothing")
    second = run(asked, capsys)
    assert {name: bits(out / name) for name in before} == before
    assert [p["score"] for p in first["points"]] == [p["score"] for p in second["points"]]
    main(asked)
    said = capsys.readouterr().err
    assert said.count("is complete already") == 2
    assert "train: " not in said
    assert main([*SWEEP, "--budgets", "flops=40%,70%", "--out", str(out)]) == 2
    assert "holds another job" in capsys.readouterr().err


def test_a_grid_and_pairs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    two = ["--budgets", "flops=50%,90%", "--budgets", "params=60%,95%"]
    grid = run([*WITHOUT_DATA, *two, "--out", str(tmp_path / "grid")], capsys)
    assert len(grid["points"]) == 4
    assert all(point["score"] is None and point["dominated_by"] is None for point in grid["points"])
    for point in grid["points"]:
        for cost, text in point["budgets"].items():
            assert point["costs"][cost] <= float(text[:-1]) / 100 * grid["fronts"][0]["original"][cost]
    pairs = run([*WITHOUT_DATA, *two, "--zip", "--out", str(tmp_path / "pairs")], capsys)
    assert [p["name"] for p in pairs["points"]] == ["flops-90pct-params-95pct", "flops-50pct-params-60pct"]
    held = run(
        [*WITHOUT_DATA, "--budgets", "flops=50%,90%", "--budget-params", "60%", "--out", str(tmp_path / "held")], capsys
    )
    assert all(point["budgets"]["params"] == "60%" for point in held["points"])


def test_one_training_for_all_budgets(tmp_path: Path, capsys: pytest.CaptureFixture[str], many: None) -> None:
    out = tmp_path / "out"
    asked = ["sweep", *BASE[:-4], "--export", "none", "--search", "many", "--budgets", "flops=35%,50%,90%"]
    found = run([*asked, "--out", str(out)], capsys)
    assert found["searches"] == ["many"]
    options = json.loads((out / "many" / "front.json").read_text())["settings"]["options"]
    assert options == {"lowest": "flops=35%"}
    for point, name in zip(found["points"], ("n3", "n1", "n0"), strict=True):
        assert point["start"] == "many"
        picked = compressor.load(out / point["name"], model=plain())
        assert bool((picked.norm.running_mean == 0.25).all()), name
    page = (out / "front.html").read_text()
    assert "Search space over training" in page
    assert "share" in page
    assert "Search space over training" in (out / "many" / "report.html").read_text()
    (out / "many" / "supernet.safetensors").write_bytes(b"nothing")
    again = run([*asked, "--out", str(out)], capsys)
    assert [p["costs"] for p in again["points"]] == [p["costs"] for p in found["points"]]
    assert (out / "many" / "supernet.safetensors").stat().st_size > 100


def test_networks_of_several_searches_are_told_apart(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], many: None
) -> None:
    out = tmp_path / "out"
    run([*SWEEP[:-1], "many", "--seeds", "0,1", "--budgets", "flops=50%,90%", "--out", str(out)], capsys)
    page = (out / "front.html").read_text()
    assert all(f"many-seed{seed}/n{number}" in page for seed in (0, 1) for number in range(4))


@pytest.mark.parametrize(
    ("options", "code", "said"),
    [
        (["--budgets", "flops=0.2%,50%"], 3, "The largest is what the model costs: flops"),
        (["--budgets", "flops=50%,120%"], 2, "above what the model costs"),
        (["--budgets", "flops=50%,50%"], 2, "given twice"),
        (["--budgets", "flops=50%,5e1 %"], 2, "The flops budget 5e1 % is given twice"),
        (["--budgets", "flops=20k,0.02M"], 2, "given twice"),
        (
            ["--budgets", "flops=50%,50.0%", "--budgets", "params=1k,1000", "--zip"],
            2,
            "alike (flops 50.0%, params 1000)",
        ),
        (["--budgets", "flops=50%,half"], 2, "Cannot read 'half'"),
        (["--budgets", "speed=50%"], 2, "Unknown cost"),
        (["--budgets", "50%"], 2, "such as flops=25%"),
        (["--budgets", "flops="], 2, "an empty text"),
        (["--budgets", "flops=30%,"], 2, "an empty text"),
        ([], 2, "no budgets to sweep over"),
        (["--budgets", "flops=30%", "--budgets", "flops=40%"], 2, "given twice"),
        (["--budgets", "flops=30%", "--budget-flops", "40%"], 2, "keep one of them"),
        (["--budgets", "flops=30%,40%", "--budgets", "params=30%", "--zip"], 2, "as many for each cost"),
        (["--budgets", "flops=30%", "--seeds", "0,0"], 2, "given twice"),
        (["--budgets", "flops=30%", "--seeds", "a"], 2, "--seeds"),
        (["--budgets", "flops=30%", "--workers", "2", "--bench-seconds", "1"], 2, "disturb"),
        (["--budgets", "latency=30%"], 2, "needs a target"),
        (["--budgets", "latency=30%,50%", "--target", "nowhere"], 2, "nowhere"),
        (["--budgets", "latency=30%", "--target", "simulated", "--workers", "2"], 2, "one at a time"),
        (["--budgets", "flops=30%", "--start", "x"], 2, "leave --start out"),
        (["--budgets", "flops=30%", "--methods", "figs"], 2, "keep one of them"),
    ],
)
def test_bad_input_is_one_line(
    options: list[str], code: int, said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    assert main([*SWEEP, *options, "--out", str(out)]) == code
    error = capsys.readouterr().err
    assert said in error
    assert "Traceback" not in error
    assert not out.exists()
    assert "train: step" not in error


def test_the_same_budgets_written_otherwise_are_the_same_sweep(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, small = tmp_path / "out", tmp_path / "small"
    first = run([*WITHOUT_DATA, "--budgets", "flops=50.0%,20k", "--budget-params", "0.9k", "--out", str(out)], capsys)
    assert {point["name"] for point in first["points"]} == {"flops-50pct-params-900", "flops-20k-params-900"}
    again = [*WITHOUT_DATA, "--budgets", "flops=5e1%,20000", "--budget-params", "900", "--out", str(out)]
    assert main(again) == 0
    assert capsys.readouterr().err.count("is complete already") == 2
    job = json.loads((out / ".job" / "job.json").read_text())
    job["fingerprint"]["sweep"][0]["flops"] = "50.0%"  # as an earlier version of the program wrote it
    (out / ".job" / "job.json").write_text(json.dumps(job))
    assert main(again) == 0
    assert main([*WITHOUT_DATA, "--budgets", "flops=50%,21k", "--budget-params", "900", "--out", str(out)]) == 2
    pick = ["pick", str(out), "--export", "none", "--out", str(small), "--trust-factories", "job_networks:plain"]
    for text in ("60%", "60.0%", "6e1%"):
        assert main([*pick, "--budget-flops", text]) == 0
    assert main([*pick, "--budget-flops", "70%"]) == 2
    assert "holds another job" in capsys.readouterr().err


@pytest.mark.parametrize("workers", ["1", "2"])
def test_a_point_that_fails_stops_no_other(workers: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"
    asked = ["sweep", *BASE, "--methods", "figs,oneshot", "--figs.lr", "1e30", "--budgets", "flops=40%,80%"]
    asked += ["--workers", workers, "--out", str(out), "--format", "json"]
    first, last = "figs-flops-80pct", "figs-flops-40pct"
    for _ in range(2):
        assert main(asked) == 1
        error = capsys.readouterr().err
        assert f"Error: {first} failed: " in error
        assert "finite" in error
        assert f"Not done, as they begin there: {last}. 2 of 4 points are done" in error
        document = json.loads((out / "front.json").read_text())
        assert not document["finished"]
        assert list(document["failed"]) == [first]
        assert [p["name"] for p in document["points"]] == ["oneshot-flops-80pct", "oneshot-flops-40pct"]
        assert f"{first} failed: " in (out / "front.html").read_text()
        for point in document["points"]:
            assert artifact.is_complete(out / point["name"])
    pick = ["pick", str(out), "--budget-flops", "40%", "--export", "none", "--trust-factories", "job_networks:plain"]
    assert main([*pick, "--out", str(tmp_path / "small")]) == 0
    assert "not done" in capsys.readouterr().err


def test_what_would_meet_every_point_ends_the_sweep(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    tried = []

    def full(config: JobConfig, **others: Any) -> None:
        tried.append(config.out)
        raise compressor.CompressorError("No space left on the device.")

    monkeypatch.setattr("compressor.jobs.sweeps.run.run_job", full)
    assert main([*WITHOUT_DATA, "--cold", "--budgets", "flops=30%,60%", "--out", str(tmp_path / "out")]) == 1
    assert "No space left" in capsys.readouterr().err
    assert len(tried) == 1


@pytest.mark.parametrize("methods", ["oneshot,dnarch", "dnarch,oneshot"])
def test_of_several_methods_the_one_that_cannot_reach_a_budget_is_named(
    methods: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = ["sweep", *BASE, "--methods", methods, "--dnarch.learn", "kernel", "--budgets", "flops=8%,90%"]
    assert main([*asked, "--out", str(tmp_path / "out")]) == 3
    error = capsys.readouterr().err
    assert "Error: dnarch: " in error
    assert "The largest is what the model costs" in error
    assert not (tmp_path / "out").exists()


def test_one_budget_says_that_a_job_would_do(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*SWEEP, "--budgets", "flops=50%", "--out", str(tmp_path / "out")]) == 0
    said = capsys.readouterr()
    assert "a plain job" in said.err
    assert "1 of 1 points" in said.out


def test_folders_in_a_front_are_below_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"
    run([*WITHOUT_DATA, "--budgets", "flops=50%", "--out", str(out)], capsys)
    document = json.loads((out / "front.json").read_text())
    document["fronts"][0]["rows"][0]["found"] = "../elsewhere"
    (out / "front.json").write_text(json.dumps(document))
    with pytest.raises(compressor.CompressorError, match="no folder of the sweep"):
        SweepDocument.read(out)
    for change in ({"units": "abc"}, {"fronts": 3}, {"fronts": [3]}, {"searches": ["a/b"]}, {"kind": "x"}):
        (out / "front.json").write_text(json.dumps(document | change))
        with pytest.raises(compressor.CompressorError, match="front"):
            SweepDocument.read(out)
