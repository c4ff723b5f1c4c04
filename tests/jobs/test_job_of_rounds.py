"""Several searches as one job on the command line: one folder, one report, one command that makes it again."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import compressor
from compressor.cli import main
from compressor.cli.app import group
from compressor.cli.compress import job_config
from compressor.jobs.run import command_of
from compressor.storage.job import Job
from tests.cli.job_networks import plain

BASE = ["--model", "job_networks:plain", "--weights", "none", "--data", "digits", "--export", "none"]
BASE += ["--bench-seconds", "0", "--search-epochs", "1", "--finetune-epochs", "1", "--tune", "none"]
ROUNDS = [*BASE, "--train-epochs", "1", "--budget-flops", "60%", "--budget-params", "70%"]
OPTIONS = ["--search", "dash,figs", "--kernel-sizes", "3,5", "--dash.dilations", "1,2", "--figs.tau", "0.02"]


def run(arguments: list[str], out: Path, capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    assert main([*arguments, "--out", str(out), "--format", "json"]) == 0, capsys.readouterr().err
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    return found


def config(arguments: list[str]) -> Any:
    context = group.make_context("compress", arguments)
    known = {name: value for name, value in context.params.items() if name not in _OF_THE_GROUP}
    return job_config(known)


_OF_THE_GROUP = {"version", "quiet", "format", "debug", "output_format", "as_json", "verbose"}
_OF_THE_GROUP |= {"executor", "ray_address", "ray_resources", "ray_processes"}  # where it runs


def test_a_folder_that_loads_and_a_command_that_makes_it_again(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    report = run([*ROUNDS, *OPTIONS], tmp_path / "a", capsys)
    assert all(budget["reached"] <= budget["limit"] for budget in report["budgets"])
    assert report["search"] == "dash,figs"
    command = shlex.split(report["command"])
    for flag, value in (("--dash.kernel-sizes", "3,5"), ("--dash.dilations", "1,2"), ("--figs.tau", "0.02")):
        assert command[command.index(flag) + 1] == value
    again = [*shlex.split(report["command"])[1:-1], str(tmp_path / "b")]
    assert main(again) == 0
    capsys.readouterr()
    for name in ("architecture.json", "model.safetensors"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()
    loaded = compressor.load(tmp_path / "a", model=plain())
    x = torch.randn(2, 1, 8, 8)
    assert loaded(x).shape == (2, 10)
    document = json.loads((tmp_path / "a" / "report.json").read_text())
    for name, kernel in document["operators"].items():
        conv: Any = dict(loaded.named_modules())[name]
        assert list(conv.kernel_size) == kernel["kernel_size"]


@pytest.mark.slow
def test_a_job_that_stops_after_anything_it_stores_goes_on_to_the_same_bits(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    run([*ROUNDS, *OPTIONS], tmp_path / "whole", capsys)
    store, stored = Job.store, list[str]()

    def once(self: Job, name: str, *args: Any) -> Any:
        store(self, name, *args)
        stored.append(name)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Job, "store", once)
        for _ in range(20):
            code = main([*ROUNDS, *OPTIONS, "--out", str(tmp_path / "parts")])
            if code == 0:
                break
        capsys.readouterr()
    assert len(set(stored)) == len(stored)
    assert {"round1.search", "search", "report"} <= set(stored)
    for name in ("architecture.json", "model.safetensors"):
        assert (tmp_path / "whole" / name).read_bytes() == (tmp_path / "parts" / name).read_bytes()


def test_a_folder_of_rounds_is_compressed_again(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run([*ROUNDS, "--search", "dash,oneshot"], tmp_path / "a", capsys)
    options = ["--model", str(tmp_path / "a"), "--budget-params", "80%", "--search", "oneshot", "--export", "none"]
    run([*options, "--bench-seconds", "0", "--trust-factories", "job_networks:plain"], tmp_path / "b", capsys)
    both = compressor.load(tmp_path / "b", model=plain())
    assert sum(p.numel() for p in both.parameters()) < 0.8 * 0.7 * sum(p.numel() for p in plain().parameters())


@pytest.mark.parametrize(
    "options",
    [
        ["--search", "dash,figs"],
        ["--search", " dash , figs "],
        ["--search", "dash,figs", "--kernel-sizes", "3,5", "--figs.tau", "0.02"],
        ["--search", "dash,dnarch", "--dash.fresh", "true", "--learn", "width", "--dash.form", "fft"],
        ["--search", "dash", "--dilations", "1,2", "--include", "first", "--include", "second"],
        ["--search", "oneshot"],
        ["--search", "oneshot", "--finetune-epochs", "0"],
        ["--search", "figs", "--search-epochs", "0", "--no-absorb", "--amp", "--compile", "--keep", "first=50%"],
        ["--seed", "3", "--export", "none", "--bench-seconds", "0", "--trust-factories", "a,b", "--lr", "0.1"],
    ],
)
def test_commands_say_the_same_job(options: list[str]) -> None:
    job = config([*ROUNDS, *options, "--out", "somewhere"])
    assert " " not in job.search
    again = config(shlex.split(command_of(job))[1:])
    assert again == job


def test_spaces_make_no_other_job() -> None:
    one, two = (config([*ROUNDS, "--search", text, "--out", "o"]) for text in ("dash,figs", " dash , figs "))
    assert one.identity() == two.identity()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--search", "figs,dash"], "figs only makes networks smaller"),
        (["--search", "dash,dash"], "names a method twice"),
        (["--search", "dash,fig"], "Did you mean figs"),
        (["--search", "dash,"], "search method"),
        (["--search", "dash,figs", "--dnarch.learn", "width"], "dash and figs was chosen"),
        (["--search", "dash,figs", "--importance", "l1"], "ranks by"),
        (["--search", "dash,figs", "--learn", "width"], "learn"),
        (["--search", "dash,figs", "--kernel-sizes", "4"], "odd"),
        (["--search", "dash,dnarch", "--grow", "2"], "grows in a search alone"),
        (["--search", "dash,figs", "--kernel-sizes", "3", "--dash.kernel-sizes", "5"], "different things"),
    ],
)
def test_what_cannot_be_is_refused_by_name(
    options: list[str], said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*ROUNDS, *options, "--out", str(tmp_path / "out")]) == 2
    assert said in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_the_benchmark_compares_with_the_first_original(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    import compressor.deploy.deliver as deliver

    compared: list[nn.Module] = []
    usual = deliver.deliver

    def noting(original: nn.Module, *args: Any, **more: Any) -> Any:
        compared.append(original)
        return usual(original, *args, **more)

    monkeypatch.setattr(deliver, "deliver", noting)
    report = run([*ROUNDS, *OPTIONS], tmp_path / "a", capsys)
    (original,) = compared
    shapes = {name: p.shape for name, p in plain().named_parameters()}
    assert {name: p.shape for name, p in original.named_parameters()} == shapes
    assert report["costs"][1]["original"] == sum(p.numel() for p in original.parameters())


@pytest.mark.slow
@pytest.mark.parametrize(
    ("target", "budget"),
    [("simulated", "85%"), ("simulated", "100%"), ("simulated", "absolute"), ("onnxruntime-cpu", "150%")],
)
def test_a_latency_budget_is_a_share_of_the_first_original_s(
    target: str, budget: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    where = ["--target", target, "--threads", "1", "--lut", str(tmp_path / "lut.sqlite")]
    before = None
    if budget == "absolute":
        probe = [*BASE, "--search", "oneshot", "--search-epochs", "0", "--finetune-epochs", "0"]
        found = run([*probe, "--budget-latency", "95%", *where], tmp_path / "probe", capsys)
        (before,) = (entry["original"] for entry in found["budgets"])
        budget = f"{0.85 * before:.6f}ms"
    job = [*BASE, "--search", "dash,figs", "--kernel-sizes", "3,5", "--dilations", "1,2"]
    report = run([*job, "--budget-latency", budget, "--budget-params", "90%", *where], tmp_path / "out", capsys)
    budgets = {entry["cost"]: entry for entry in report["budgets"]}
    latency, params = budgets["latency"], budgets["params"]
    assert latency["reached"] <= latency["limit"]
    assert params["reached"] <= params["limit"]
    if before is None:
        assert latency["limit"] == pytest.approx(latency["original"] * float(budget[:-1]) / 100, rel=0.05)
    else:
        assert latency["limit"] == pytest.approx(float(budget[:-2]))
        assert latency["original"] == pytest.approx(before, rel=0.5)
