"""Workers and the server are killed at random moments: every job ends once, none twice, none lost, with equal files.

The quick test has children that stand in for compressions; the slow ones compress. The benchmark
``benchmarks/service/nothing_lost.py`` does the same with 200 jobs and 50 kills, on SQLite and Postgres.
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.service.chaos import Farm, Outcome, in_folder, run
from tests.service.worker import stand_in

pytest.importorskip("fastapi", reason="the service is not installed: pip install 'compressor[serve]'")
pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="kills processes")
REAL = {"work": "compressor.service.worker.work:run"}
SMALL = {"model": "resnet20_cifar", "weights": "none", "input_shape": [3, 32, 32], "bench_seconds": 0.0, "export": []}


def steady_files(recipe: Mapping[str, Any], folder: Path) -> dict[str, bytes]:
    """What the stand-in makes of a recipe that nobody disturbs."""
    with in_folder(folder):
        stand_in.steady({"recipe": recipe}, lambda event: None)
        return {name: (stand_in.RESULT / name).read_bytes() for name in ("model.bin", "report.json")}


def require_once(found: Outcome) -> None:
    assert (found.state, found.error, found.ends) == ("done", None, 1), found


@pytest.mark.slow
def test_stand_ins_end_once_with_the_same_files(tmp_path: Path) -> None:
    recipes = {f"job-{number}": {**SMALL, "budgets": {"flops": f"{40 + number}%"}} for number in range(12)}
    with Farm(tmp_path / "farm", workers=2, worker={"work": "stand_in:steady"}) as farm:
        ids = run(farm, recipes, kills=4, seed=1, between=(0.3, 1.2), seconds=600)
        assert set(farm.jobs()) == set(ids.values())
        outcomes = {name: farm.outcome(id) for name, id in ids.items()}
    assert farm.kills.all == 4
    for name, found in outcomes.items():
        require_once(found)
        expected = steady_files(found.recipe, tmp_path / name)
        assert {path: found.files[path] for path in expected} == expected


def artefacts(files: Mapping[str, bytes]) -> dict[str, Any]:
    """What of a compression must not depend on kills: weights, decision, and the report but for times."""
    report = json.loads(files["report.json"])
    return {
        "weights": hashlib.sha256(files["model.safetensors"]).hexdigest(),
        "architecture": json.loads(files["architecture.json"]),
        "report": {
            name: report.get(name) for name in ("budgets", "accuracy", "history", "warnings", "command", "blocks")
        },
    }


def undisturbed(recipe: Mapping[str, Any], folder: Path) -> dict[str, bytes]:
    """The files of a job that runs alone, without a service."""
    from compressor.jobs.recipes.run import run as compressed

    with in_folder(folder):
        compressed(dict(recipe), out="result")
    return {path.name: path.read_bytes() for path in (folder / "result").iterdir() if path.is_file()}


@pytest.mark.slow
def test_compressions_end_once_with_the_same_bits(tmp_path: Path) -> None:
    recipes = {f"job-{number}": {**SMALL, "budgets": {"flops": f"{40 + 5 * number}%"}} for number in range(4)}
    with Farm(tmp_path / "farm", workers=2, worker=REAL, lease_seconds=3) as farm:
        ids = run(farm, recipes, kills=4, seed=2, between=(1.5, 8), seconds=1500)
        outcomes = {name: farm.outcome(id) for name, id in ids.items()}
    for name, found in outcomes.items():
        require_once(found)
        assert artefacts(found.files) == artefacts(undisturbed(found.recipe, tmp_path / name))


@pytest.mark.slow
def test_a_training_that_is_killed_again_and_again_ends_with_the_same_bits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    recipe = {
        **{name: value for name, value in SMALL.items() if name != "input_shape"},
        **{"data": "digits", "search": "figs", "figs": {"least_steps": 0}, "budgets": {"flops": "50%"}},
        **{"train_epochs": 3, "search_epochs": 3, "finetune_epochs": 3},
    }
    with Farm(tmp_path / "farm", workers=1, worker={**REAL, "snapshot_seconds": 1.0}, lease_seconds=2) as farm:
        ids = run(farm, {"job": recipe}, kills=5, seed=3, between=(3, 9), seconds=1500, server=0.3)
        found = farm.outcome(ids["job"])
    require_once(found)
    assert found.attempt > 1
    assert os.environ["OMP_NUM_THREADS"] == "1"
    assert artefacts(found.files) == artefacts(undisturbed(found.recipe, tmp_path / "alone"))
