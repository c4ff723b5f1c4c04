"""A job's folder keeps what is finished and belongs to one job and one process at a time."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from compressor.errors import UsageError
from compressor.storage.job import Job

ASKED = {"model": "resnet20_cifar", "budgets": {"flops": "50%"}, "seed": 0}


def test_stages_survive_and_absent_ones_are_none(tmp_path: Path) -> None:
    out = tmp_path / "out"
    with Job.open(out, ASKED) as job:
        assert not job.resumed
        assert job.stage("search") is None
        stored = job.store("search", {"cost": 1.5, "loss": float("inf"), "pair": (1, 2)}, {"w": torch.ones(3)})
        assert stored.data["pair"] == [1, 2]
        job.store("bench", {"latency_ms": 2.0})
    with Job.open(out, ASKED) as job:
        assert job.resumed
        search, bench = job.stage("search"), job.stage("bench")
        assert search is not None
        assert bench is not None
        assert search.data == stored.data
        assert torch.equal(search.tensors["w"], torch.ones(3))
        assert bench.tensors == {}
        assert job.stage("export") is None


def test_storing_again_replaces_and_drops_the_checkpoint(tmp_path: Path) -> None:
    with Job.open(tmp_path, ASKED) as job:
        job.checkpoint("tune").parent.mkdir()
        job.checkpoint("tune").write_bytes(b"x")
        second = job.checkpoint("tune").with_suffix(".second.safetensors")
        second.write_bytes(b"x")
        job.checkpoint("tuned").write_bytes(b"x")
        job.store("tune", {"a": 1}, {"w": torch.ones(1)})
        assert not job.checkpoint("tune").exists()
        assert not second.exists()
        assert job.checkpoint("tuned").exists(), "of another stage"
        job.store("tune", {"a": 2})
        again = job.stage("tune")
        assert again is not None
        assert (again.data, again.tensors) == ({"a": 2}, {})


def test_tensors_without_the_commit_do_not_count(tmp_path: Path) -> None:
    with Job.open(tmp_path, ASKED) as job:
        job.store("tune", {"a": 1}, {"w": torch.ones(1)})
        (tmp_path / ".job" / "stages" / "tune.json").unlink()
        assert job.stage("tune") is None


def test_damaged_stage_is_not_trusted_and_done_again(tmp_path: Path) -> None:
    said: list[str] = []
    with Job.open(tmp_path, ASKED, warn=said.append) as job:
        stages = tmp_path / ".job" / "stages"
        for file in ("tune.json", "tune.safetensors"):
            job.store("tune", {"a": 1}, {"w": torch.ones(100)})
            whole = (stages / file).read_bytes()
            for damaged in (b"", b"{", whole[:-2], whole.replace(b"1", b"2", 1), whole[:-3] + b"\x80" + whole[-2:]):
                (stages / file).write_bytes(damaged)
                assert job.stage("tune") is None
                assert "tune." in said[-1]
                assert "done again" in said[-1]
            (stages / file).unlink()
            assert job.stage("tune") is None
        job.store("tune", {"a": 2}, {"w": torch.ones(100)})
        again = job.stage("tune")
        assert again is not None
        assert again.data == {"a": 2}


def test_other_job_is_refused_unless_forced(tmp_path: Path) -> None:
    with Job.open(tmp_path, ASKED) as job:
        job.store("tune", {"a": 1})
    with pytest.raises(UsageError, match=r"another job \(seed was 0, now 1\); .*--force"):
        Job.open(tmp_path, {**ASKED, "seed": 1})
    with Job.open(tmp_path, ASKED, force=True) as job:
        assert job.resumed, "force continues the same job"
        assert job.stage("tune") is not None
    with Job.open(tmp_path, {**ASKED, "seed": 1}, force=True) as job:
        assert not job.resumed
        assert job.stage("tune") is None
    with Job.open(tmp_path, {**ASKED, "seed": 1}) as job:
        assert job.resumed


def test_damaged_job_file_and_other_schema_are_refused(tmp_path: Path) -> None:
    with Job.open(tmp_path, ASKED) as job:
        job.store("tune", {"a": 1})
    path = tmp_path / ".job" / "job.json"
    path.write_text(path.read_text().replace('"schema_version": 1', '"schema_version": 99'))
    with pytest.raises(UsageError, match="schema version 99"):
        Job.open(tmp_path, ASKED)
    path.write_text("nonsense")
    with pytest.raises(UsageError, match="damaged"):
        Job.open(tmp_path, ASKED)
    Job.open(tmp_path, ASKED, force=True).close()
    Job.open(tmp_path, ASKED).close()


def test_folder_that_is_no_job_is_refused_untouched(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("precious")
    with pytest.raises(UsageError, match="not empty"):
        Job.open(tmp_path, ASKED)
    assert [p.name for p in tmp_path.iterdir()] == ["thesis.tex"]
    Job.open(tmp_path, ASKED, force=True).close()
    assert (tmp_path / "thesis.tex").read_text() == "precious"
    with pytest.raises(UsageError, match="is a file"):
        Job.open(tmp_path / "thesis.tex", ASKED)


def test_killed_before_the_job_file_is_no_obstacle(tmp_path: Path) -> None:
    (tmp_path / ".job").mkdir()
    (tmp_path / ".job" / "lock").touch()
    (tmp_path / ".job" / ".job.1-ab.tmp.json").write_text("{")
    Job.open(tmp_path, ASKED).close()
    assert not list((tmp_path / ".job").glob("*.tmp*"))


def test_job_that_stored_nothing_does_not_claim_the_folder(tmp_path: Path) -> None:
    Job.open(tmp_path / "killed", ASKED).close()
    with Job.open(tmp_path / "killed", {**ASKED, "seed": 1}) as job:
        assert not job.resumed
    (tmp_path / "killed" / "model.onnx").write_text("precious")
    with pytest.raises(UsageError, match="another job"):
        Job.open(tmp_path / "killed", ASKED)


@pytest.mark.parametrize("seed", [0, 1])
def test_what_a_killed_job_wrote_beside_is_in_nobodys_way(seed: int, tmp_path: Path) -> None:
    """Killed before it stored anything, then stopped so early, and then run again."""
    out = tmp_path / "out"
    killed = Job.open(out, ASKED)
    killed.beside("recipe.yaml").write_text("model: resnet20_cifar")
    killed.beside("tracking").mkdir()
    killed.close()

    def stopped() -> None:
        with Job.open(out, {**ASKED, "seed": seed}) as job:
            job.beside("recipe.yaml").write_text("model: resnet20_cifar")
            job.beside("tracking")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        stopped()
    assert not out.exists()
    with Job.open(out, ASKED) as job:
        assert not job.resumed


def test_what_was_there_before_any_job_stays(tmp_path: Path) -> None:
    (tmp_path / "recipe.yaml").write_text("precious")

    def stopped() -> None:
        with Job.open(tmp_path, ASKED, force=True) as job:
            job.beside("recipe.yaml")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        stopped()
    assert (tmp_path / "recipe.yaml").read_text() == "precious"


def test_job_that_failed_leaves_what_it_stored_and_nothing_else(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="mistyped"), Job.open(tmp_path / "new" / "out", ASKED):
        raise ValueError("mistyped")
    assert not (tmp_path / "new" / "out").exists()
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").write_text("precious")
    with pytest.raises(ValueError, match="mistyped"), Job.open(tmp_path / "mine", ASKED, force=True):
        raise ValueError("mistyped")
    assert [p.name for p in (tmp_path / "mine").iterdir()] == ["thesis.tex"]

    def late() -> None:
        with Job.open(tmp_path / "late", ASKED) as job:
            job.store("tune", {"a": 1})
            raise ValueError("late")

    with pytest.raises(ValueError, match="late"):
        late()
    with Job.open(tmp_path / "late", ASKED) as job:
        assert job.stage("tune") is not None


def test_stage_names_cannot_leave_the_folder(tmp_path: Path) -> None:
    with Job.open(tmp_path, ASKED) as job, pytest.raises(UsageError, match="cannot be called"):
        job.store("../x", {})


HOLDER = """
import sys, time
from compressor.job import Job
job = Job.open(sys.argv[1], {"a": 1})
job.store("first", {"x": 1})
print("ready", flush=True)
time.sleep(600)
"""


@pytest.mark.skipif(os.name != "posix", reason="kill -9 is a POSIX matter")
def test_one_process_at_a_time_and_a_dead_owner_is_taken_over(tmp_path: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", HOLDER, str(tmp_path)], stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "ready\n"
        with pytest.raises(UsageError, match=rf"pid {holder.pid}"):
            Job.open(tmp_path, {"a": 1})
        holder.send_signal(signal.SIGKILL)
        holder.wait()
    with Job.open(tmp_path, {"a": 1}) as job:
        assert job.resumed
        assert job.stage("first") is not None


def test_second_opening_in_the_same_process_is_refused_until_closed(tmp_path: Path) -> None:
    job = Job.open(tmp_path, ASKED)
    with pytest.raises(UsageError, match="Another process"):
        Job.open(tmp_path, ASKED)
    job.close()
    job.close()
    Job.open(tmp_path, ASKED).close()
