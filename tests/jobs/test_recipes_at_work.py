"""A job leaves a recipe that gives the same bits again; the command line shows recipes, and takes those of sweeps."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import compressor
from compressor.cli import main
from compressor.cli.compress import given_options
from compressor.cli.sweep import sweep, sweep_config
from compressor.errors import UsageError
from compressor.jobs.recipes.read import read_recipe, recipe_of
from compressor.jobs.sweeps.config import SweepConfig
from tests.jobs.recipe_texts import TINY

FIGS = f"{TINY}search: figs\nsearch_epochs: 1\nfinetune_epochs: 1\nfigs: {{tau: 0.02, max_steps: 8}}\n"


def test_what_ran_gives_the_same_bits(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "job.yaml"
    path.write_text(FIGS)
    assert main(["--config", str(path), "--seed", "3", "--out", str(tmp_path / "a"), "-q"]) == 0
    assert main(["--config", str(tmp_path / "a" / "recipe.yaml"), "--out", str(tmp_path / "b"), "-q"]) == 0
    capsys.readouterr()
    report = compressor.run(compressor.load_recipe(tmp_path / "b"), out=tmp_path / "c")
    assert report.seed == 3
    for name in ("model.safetensors", "architecture.json", "recipe.yaml"):
        first = (tmp_path / "a" / name).read_bytes()
        assert first == (tmp_path / "b" / name).read_bytes() == (tmp_path / "c" / name).read_bytes(), name
    # In its own folder it is the same job, though it says all defaults now.
    assert main(["--config", str(tmp_path / "a"), "--out", str(tmp_path / "a")]) == 0
    assert "complete already" in capsys.readouterr().err


def test_a_job_that_stored_nothing_leaves_no_recipe(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "job.yaml"
    path.write_text(TINY.replace("60%", "0.01%"))
    out = tmp_path / "out"
    assert main(["--config", str(path), "--out", str(out)]) == 3
    assert not out.exists()
    out.mkdir()
    (out / "recipe.yaml").write_text(f"# mine\n{TINY}")
    assert main(["--config", str(path), "--out", str(out), "--force"]) == 3
    assert (out / "recipe.yaml").exists()
    capsys.readouterr()


def test_config_show_is_a_recipe(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "job.yaml"
    path.write_text(FIGS)
    assert main(["config", "show", str(path), "--figs.tau", "0.5", "--budget-params", "70%"]) == 0
    shown = tmp_path / "shown.yaml"
    shown.write_text(capsys.readouterr().out)
    told = read_recipe(shown).job()
    assert (told.options["tau"], told.options["lr"], told.seed) == (0.5, 0.01, 0)
    assert [budget.text for budget in told.budgets] == ["60%", "70%"]
    for flags in (["--json"], ["--format", "json"]):
        assert main(["config", "show", "--config", str(shown), *flags]) == 0
        document = json.loads(capsys.readouterr().out)
        assert recipe_of(document).job() == told
        assert document["schema_version"] == 1
    assert list(tmp_path.iterdir()) != []
    for line, said in (
        (["config", "show"], "nothing to show"),
        (["config", "show", str(path), "--config", str(path)], "two recipes"),
        (["config", "show", str(tmp_path)], "no recipe.yaml"),
        (["config", "show", "--model", "resnet18"], "No budget"),
        (["config", "show", str(path), "--dnarch.lr", "1"], "--dnarch.lr is for"),
    ):
        assert main(line) == 2
        assert said in capsys.readouterr().err


def test_a_sweep_has_a_recipe_too(tmp_path: Path) -> None:
    path = tmp_path / "sweep.yaml"
    path.write_text(
        "model: resnet18\ndata: digits\nbudgets: {flops: [25%, 50%], params: 90%}\nmethods: [figs, oneshot]\n"
        "seeds: [0, 2]\nfigs: {tau: 0.5}\noneshot.rounds: 3\nworkers: 2\ncold: yes\n"
    )

    def told(*arguments: str) -> SweepConfig:
        context = sweep.make_context("sweep", [*arguments])
        return sweep_config(context.params, given_options(context, context.params))

    line = (
        "--model resnet18 --data digits --budgets flops=25%,50% --budget-params 90% --methods figs,oneshot --seeds 0,2"
    )
    line += " --figs.tau 0.5 --oneshot.rounds 3 --workers 2 --cold"
    assert told("--config", str(path)) == told(*line.split())
    # What stands on the command line wins, also where it says the plural or the singular.
    found = told("--config", str(path), "--search", "figs", "--budget-flops", "40%", "--budgets", "params=1M,2M")
    assert found.methods == ("figs",)
    assert found.jobs[0].options == {"tau": 0.5}
    assert [[budget.text for budget in each] for each in found.budgets] == [["1M", "40%"], ["2M", "40%"]]
    assert told("--config", str(path), "--seed", "4").seeds == (4,)
    path.write_text(
        "model: resnet18\nbudgets: {flops: [25%, 50%], params: [1M, 2M]}\nzip: true\ntarget: x\ntargets: [y]\n"
    )
    with pytest.raises(UsageError, match="target and --targets"):
        told("--config", str(path))
    assert len(told("--config", str(path), "--target", "onnxruntime-cpu", "--budget-latency", "50%").budgets) == 2
    path.write_text("model: resnet18\nbudgets: {flops: 25%}\n")
    with pytest.raises(UsageError, match="no budgets to sweep"):
        told("--config", str(path))
    path.write_text("model: resnet18\nsead: 1\n")
    with pytest.raises(UsageError, match="Did you mean seed"):
        told("--config", str(path))


def test_from_python(tmp_path: Path) -> None:
    told: dict[str, Any] = {"model": "job_networks:plain", "budgets": {"flops": "70%"}, "weights": "none", "export": []}
    told["input_shape"] = [1, 8, 8]
    report = compressor.run({**told, "bench_seconds": 0}, out=tmp_path / "out")
    assert report.budgets[0].reached <= report.budgets[0].limit
    assert compressor.load(tmp_path / "out", trust_factories=["job_networks"])
    with pytest.raises(UsageError, match="no key 'modle'"):
        compressor.run({"modle": 3})
    with pytest.raises(UsageError, match="recipe must be"):
        compressor.run(3)  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="verbose"):
        compressor.run(told, verbose=3)  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="a key must be a text"):
        compressor.run({3: 4})  # type: ignore[dict-item]
