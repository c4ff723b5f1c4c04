"""A job's folder says what happened, also where the job was cut off and went on."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from compressor.errors import UnreachableBudgetError
from compressor.jobs.recipes.read import read_recipe, recipe_of
from compressor.jobs.run import run_job
from compressor.pipeline.events import Event, Events, Step

TOLD: dict[str, Any] = {"model": "job_networks:plain", "weights": "none", "data": "digits", "budgets": {"flops": "60%"}}
TOLD |= {"search": "figs", "search_epochs": 1, "finetune_epochs": 1, "figs": {"max_steps": 4}, "export": "none"}
TOLD |= {"bench_seconds": 0}


def lines(out: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (out / "events.jsonl").read_text(encoding="utf-8").splitlines()]


def stop(event: Event) -> None:
    if isinstance(event, Step) and event.stage == "finetune" and event.done == 3:
        raise KeyboardInterrupt


def test_what_happened_before_it_was_cut_off_stays(tmp_path: Path) -> None:
    out = tmp_path / "out"
    job = recipe_of({**TOLD, "out": str(out)}).job()
    with pytest.raises(KeyboardInterrupt):
        run_job(job, events=Events(stop))
    assert lines(out)[-1]["status"] == "interrupted"
    with (out / "events.jsonl").open("a") as file:
        file.write('{"time": "2026-01-01T00:00:00.000Z", "eve')  # where it was killed
    # Its own recipe goes on with it.
    again = recipe_of({"out": str(out)}).over(read_recipe(out)).job()
    run_job(again, events=Events())
    found = lines(out)
    began = [line for line in found if line["event"] == "JobBegan"]
    assert [line["status"] for line in found if line["event"] == "JobEnded"] == ["interrupted", "done"]
    assert began[0]["configuration"] == began[1]["configuration"]
    assert began[0]["run"] == began[1]["run"] != ""
    searched = [line for line in found if line["event"] == "Step" and line["stage"] == "search"]
    assert [line["done"] for line in searched] == [1, 2, 3, 4]
    # Another job there is another run, and its folder says what happened in that one.
    with pytest.raises(KeyboardInterrupt):
        run_job(recipe_of({**TOLD, "out": str(out), "seed": 1, "force": True}).job(), events=Events(stop))
    found = lines(out)
    assert [line["event"] for line in found].count("JobBegan") == 1
    assert found[0]["run"] != began[0]["run"]
    assert read_recipe(out).job().seed == 1


def test_a_folder_in_which_nothing_was_stored_belongs_to_nobody(tmp_path: Path) -> None:
    out = tmp_path / "out"

    def killed(event: Event) -> None:
        for name in ("events.jsonl", "recipe.yaml"):
            if (out / name).exists():
                (left / name).write_bytes((out / name).read_bytes())

    left = tmp_path / "left"
    (left / ".job").mkdir(parents=True)
    unreachable = {**TOLD, "out": str(out), "budgets": {"flops": "0.01%"}}
    with pytest.raises(UnreachableBudgetError):
        run_job(recipe_of(unreachable).job(), events=Events(killed))
    assert not out.exists()
    # What a job leaves that is killed before it has stored anything is no obstacle.
    (left / ".job" / "job.json").write_text('{"schema_version": 1, "fingerprint": {"model": "another"}}')
    (left / "tracking").mkdir()
    run_job(recipe_of({**TOLD, "out": str(left)}).job(), events=Events())
    assert lines(left)[0]["configuration"]["budgets"] == {"flops": "60%"}
    assert read_recipe(left).job().budgets[0].text == "60%"
