"""Jobs on Ray: as in processes of this machine, wherever they run, and whatever is lost meanwhile."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from compressor.errors import CompressorError, UnreachableBudgetError, UsageError
from compressor.jobs.executors.base import JobTask
from compressor.jobs.executors.ray import RayExecutor
from compressor.jobs.sweeps import run as sweep_run
from compressor.jobs.sweeps.run import run_sweep
from compressor.pipeline.events import Events
from compressor.process.ray_cluster import RayCluster, RaySettings
from compressor.process.ray_pool import on_ray
from tests.jobs.ray_sweeps import outcome, steps, sweep_to
from tests.pipeline.test_tuning import pipeline, ran, settings
from tests.search.test_supernet import run as supernet

ray = pytest.importorskip("ray")
pytestmark = [pytest.mark.slow, pytest.mark.skipif(os.name != "posix", reason="kill -9 is a POSIX matter")]
TASKS = "tests.jobs.ray_tasks"


def task(function: str, **arguments: Any) -> JobTask:
    needs = arguments.pop("needs", {})
    name = f"{function} {arguments.get('value', '')}".strip()
    return JobTask(name, f"{TASKS}:{function}", arguments, needs)


def results(executor: RayExecutor, *tasks: JobTask) -> list[Any]:
    with executor:
        for each in tasks:
            executor.submit(each)
        return [found for _, found in executor.results()]


@pytest.fixture(scope="module")
def two_cores() -> Iterator[None]:
    """A Ray of this machine with two cores and a device, which lasts for the tests of this module that ask for it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("RAY_ADDRESS", raising=False)
        with RayCluster(cpus=2, resources={"jetson-1": 1}):
            yield
    assert not ray.is_initialized()


@pytest.mark.usefixtures("two_cores")
class TestOnOneMachine:
    def test_results_come_and_more_is_submitted_meanwhile(self) -> None:
        found = {}
        with RayExecutor(workers=2) as executor:
            for value in (1, 2, 3):
                executor.submit(task("doubled", value=value))
            for done, result in executor.results():
                found[done.name] = result["value"]
                if done.name == "doubled 1":
                    executor.submit(task("doubled", value=5))
        assert found == {"doubled 1": 2, "doubled 2": 4, "doubled 3": 6, "doubled 5": 10}

    def test_errors_are_those_of_the_task(self) -> None:
        with pytest.raises(UnreachableBudgetError, match="13 is none") as raised:
            results(RayExecutor(), task("doubled", value=13))
        assert raised.value.exit_code == 3
        assert "doubled" in str(raised.value.__cause__), "where it was raised is said"
        with pytest.raises(SystemExit):
            results(RayExecutor(), task("ends_its_process", status=3))
        with pytest.raises(UsageError, match="no_such"):
            results(RayExecutor(), task("no_such"))

    def test_a_process_that_is_lost_is_begun_anew(self, tmp_path: Path) -> None:
        assert results(RayExecutor(RaySettings(tries=2)), task("dies", folder=str(tmp_path), times=2)) == [2]

    def test_one_that_is_lost_again_and_again_is_named(self, tmp_path: Path) -> None:
        with pytest.raises(CompressorError, match="The process of dies was lost again and again"):
            results(RayExecutor(RaySettings(tries=1)), task("dies", folder=str(tmp_path), times=9))
        assert len(list(tmp_path.iterdir())) == 2

    def test_an_error_outside_ends_what_runs(self, tmp_path: Path) -> None:
        def interrupted() -> None:
            with RayExecutor() as executor:
                executor.submit(task("sleeps", folder=str(tmp_path)))
                while not (tmp_path / "pid").exists() or not (tmp_path / "pid").read_text():
                    time.sleep(0.05)
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            interrupted()
        for _ in range(100):
            if not Path(f"/proc/{(tmp_path / 'pid').read_text()}").exists():
                break
            time.sleep(0.1)
        with pytest.raises(ProcessLookupError):
            os.kill(int((tmp_path / "pid").read_text()), 0)

    @pytest.mark.parametrize(
        ("settings", "needs", "workers", "most"),
        [
            (RaySettings(cpus=2), {}, None, 1),
            (RaySettings(), {"jetson-1": 1}, None, 1),
            (RaySettings(), {}, 1, 1),
            (RaySettings(), {}, None, 2),
        ],
    )
    def test_resources_are_kept(
        self, tmp_path: Path, settings: RaySettings, needs: dict[str, float], workers: int | None, most: int
    ) -> None:
        tasks = [task("beside", folder=str(tmp_path), name=str(n), needs=needs) for n in range(4)]
        assert max(results(RayExecutor(settings, workers=workers), *tasks)) <= most

    @pytest.mark.parametrize("needs", [{"GPU": 1}, {"CPU": 3}, {"jetson-2": 1}])
    def test_what_no_node_has_is_said_and_not_waited_for(self, needs: dict[str, float]) -> None:
        with pytest.raises(UsageError, match="No node of the Ray cluster has what a task takes"):
            results(RayExecutor(), task("doubled", value=1, needs=needs))

    def test_a_folder_that_nodes_do_not_share_is_named(self, tmp_path: Path) -> None:
        file = tmp_path / "sweep.json"
        file.write_text("{}")
        executor = RayExecutor(shared=file)
        file.write_text("another")
        with pytest.raises(UsageError, match=r"does not see .*sweep\.json as it is here"):
            results(executor, task("doubled", value=1))

    def test_a_task_may_be_done_by_several_processes_of_its_node(self, tmp_path: Path) -> None:
        both = JobTask("both", "tests.jobs.test_several:ranks", {"folder": str(tmp_path)})
        assert results(RayExecutor(processes=2), both) == [{"rank": 0, "of": 2}]
        with pytest.raises(UsageError, match="3 CPU"):
            results(RayExecutor(processes=3), both)

    def test_work_side_by_side_inside_a_task_is_on_ray_too(self) -> None:
        (found,) = results(RayExecutor(), task("inner", times=3))
        assert found["found"] == {"1": 3, "2": 6, "3": 9}
        assert found["own"] not in found["theirs"]


@pytest.fixture(scope="module")
def sequential(tmp_path_factory: pytest.TempPathFactory) -> Any:
    out = tmp_path_factory.mktemp("sequential") / "out"
    run_sweep(sweep_to(out), events=Events(), quiet=True)
    return outcome(out)


@pytest.mark.usefixtures("two_cores")
def test_trials_on_ray_have_the_rows_of_one_after_the_other() -> None:
    grid = {"lr": [0.05, 0.01, 1e30]}
    alone = pipeline(settings(tune=grid))
    with on_ray(RaySettings()):
        beside = pipeline(settings(tune=grid, trial_workers=2))
    assert ran(beside) == ran(alone)
    mine, other = alone.compressed.state_dict(), beside.compressed.state_dict()
    assert all(torch.equal(mine[name], other[name]) for name in mine)


@pytest.mark.usefixtures("two_cores")
def test_subnets_are_scored_on_ray_as_here() -> None:
    one = supernet({"flops": "60%"}, workers=1, epochs=1)
    with on_ray(RaySettings()):
        two = supernet({"flops": "60%"}, workers=2, epochs=1)
    assert one.decision.evaluated == two.decision.evaluated
    assert one.decision.noted()["points"] == two.decision.noted()["points"]


@pytest.mark.usefixtures("two_cores")
def test_a_sweep_on_ray_is_the_sequential_one(tmp_path: Path, sequential: Any) -> None:
    out = tmp_path / "out"
    run_sweep(sweep_to(out), events=Events(), make=lambda shared: RayExecutor(workers=2, shared=shared))
    assert len(sequential[0]) == 8
    assert outcome(out) == sequential


@pytest.mark.usefixtures("two_cores")
def test_a_process_that_is_killed_costs_its_current_stage(
    tmp_path: Path, sequential: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    usual = sweep_run._task

    def dying(*arguments: Any, **more: Any) -> JobTask:
        made = usual(*arguments, **more)
        return JobTask(made.name, "tests.jobs.ray_points:run_point_that_dies", made.arguments, made.needs)

    monkeypatch.setattr(sweep_run, "_task", dying)
    out = tmp_path / "out"
    run_sweep(sweep_to(out), events=Events(), make=lambda shared: RayExecutor(workers=2, shared=shared))
    assert len(list(out.glob("*.died"))) == 8, "every point was killed once"
    assert outcome(out) == sequential
    for name in (row["name"] for row in sequential[0]):
        for stage, counts in steps(out / name).items():
            if stage != "finetune":
                assert set(counts.values()) == {1}, f"{stage} of {name} was not done again"
