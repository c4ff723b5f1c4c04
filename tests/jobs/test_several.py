"""A task in several processes that train together: what the first returns or raises, and no orphans."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from compressor.errors import ProcessLostError, UnreachableBudgetError
from compressor.jobs.executors.base import JobTask
from compressor.jobs.executors.several import run_together
from compressor.report.saved import read_report

pytestmark = [pytest.mark.slow, pytest.mark.skipif(os.name != "posix", reason="kill -9 is a POSIX matter")]


def ranks(folder: str, then: str = "") -> dict[str, int]:
    """Notes each process; then ends as asked."""
    rank = int(os.environ["RANK"])
    (Path(folder) / str(rank)).write_text(str(os.getpid()))
    if then == "raise":
        raise UnreachableBudgetError("1% is too low.")
    if then == "die":
        os.kill(os.getpid(), signal.SIGKILL)
    while then == "stay":
        time.sleep(0.1)
    return {"rank": rank, "of": int(os.environ["WORLD_SIZE"])}


def task(folder: Path, then: str = "") -> JobTask:
    return JobTask("a point", f"{__name__}:ranks", {"folder": str(folder), "then": then})


def test_the_first_answers(tmp_path: Path) -> None:
    assert run_together(task(tmp_path), 2) == {"rank": 0, "of": 2}
    assert {path.name for path in tmp_path.iterdir()} == {"0", "1"}


def test_errors_keep_their_class_and_deaths_are_named(tmp_path: Path) -> None:
    with pytest.raises(UnreachableBudgetError, match=r"^1% is too low\.$"):
        run_together(task(tmp_path, "raise"), 2)
    with pytest.raises(ProcessLostError, match="A process of a point ended before it was done"):
        run_together(task(tmp_path, "die"), 2)


def test_nobody_goes_on_when_the_owner_is_gone(tmp_path: Path) -> None:
    script = f"from tests.jobs.test_several import *; run_together(task(Path({str(tmp_path)!r}), 'stay'), 2)"
    owner = subprocess.Popen([sys.executable, "-c", script])
    while not all((tmp_path / name).exists() and (tmp_path / name).read_text() for name in "01"):
        assert owner.poll() is None
        time.sleep(0.1)
    owner.kill()
    owner.wait()
    for name in "01":
        place = Path("/proc") / (tmp_path / name).read_text()
        for _ in range(300):
            if not place.exists():
                break
            time.sleep(0.1)
        assert not place.exists()


def test_a_job_of_two_processes_is_one(tmp_path: Path) -> None:
    arguments = {
        "recipe": {
            "model": "job_networks:plain",
            "weights": "none",
            "data": "digits",
            "search": "oneshot",
            "finetune_epochs": 1,
            "export": [],
            "bench_seconds": 0,
            "budgets": {"flops": "50%"},
            "out": str(tmp_path / "out"),
        }
    }
    found = run_together(JobTask("a point", f"{__name__}:compressed", arguments), 2)
    assert found == {"budgets": 1}
    events = (tmp_path / "out" / "events.jsonl").read_text()
    assert events.count('"JobEnded"') == 1, "the first alone writes"
    assert all(budget.met for budget in read_report(tmp_path / "out").budgets)


def compressed(recipe: dict[str, object]) -> dict[str, int]:
    from compressor.jobs.recipes.read import recipe_of
    from compressor.jobs.run import run_job
    from compressor.pipeline.events import Events

    return {"budgets": len(run_job(recipe_of(recipe).job(), events=Events()).budgets)}
