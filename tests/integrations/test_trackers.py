"""Trackers: the real ones keep what they are told, and one that is down ends no job."""

from __future__ import annotations

import importlib.util
import json
import os
import struct
import threading
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, ClassVar

import pytest

from compressor.cli import main
from compressor.errors import MissingDependencyError, UsageError
from compressor.integrations.trackers import TRACKERS
from compressor.integrations.trackers import listener as listening
from compressor.integrations.trackers.base import Run, flat
from compressor.integrations.trackers.listener import TrackerListener
from compressor.pipeline.events import Events, JobBegan, StepEvents
from compressor.testing import TrackerContract

Numbers = Mapping[str, Mapping[int, float]]


class TestTensorBoard(TrackerContract):
    name = "tensorboard"

    def logged(self, run: Run) -> Numbers:
        return tensorboard(run.folder)


def tensorboard(folder: Path | None) -> dict[str, dict[int, float]]:
    """The numbers in the event files of a job's folder of trackers."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    assert folder is not None
    found = EventAccumulator(str(folder / "tensorboard"), size_guidance={"scalars": 0})
    found.Reload()
    assert "configuration/text_summary" in found.Tags()["tensors"]
    return {tag: {e.step: e.value for e in found.Scalars(tag)} for tag in found.Tags()["scalars"]}


@pytest.mark.slow
class TestMLflow(TrackerContract):
    name = "mlflow"

    def prepare(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{folder}/mlflow.db")
        monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "tests")

    def logged(self, run: Run) -> Numbers:
        from mlflow.tracking import MlflowClient

        client = MlflowClient()
        experiment = client.get_experiment_by_name("tests").experiment_id
        (found,) = client.search_runs([experiment], f"tags.`compressor.run` = '{run.id}'")
        assert (found.info.run_name, found.info.status) == (run.name, "FINISHED")
        assert found.data.params.get("budgets.flops", "50%") == "50%"
        names = found.data.metrics
        return {name: {m.step: m.value for m in client.get_metric_history(found.info.run_id, name)} for name in names}


@pytest.mark.slow
class TestWandB(TrackerContract):
    name = "wandb"

    def prepare(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        time.sleep(1.1)  # its folders are named by the second
        monkeypatch.setenv("WANDB_MODE", "offline")
        monkeypatch.setenv("WANDB_CACHE_DIR", str(folder))
        for name in ("WANDB_RUN_ID", "WANDB_NAME", "WANDB_PROJECT"):
            monkeypatch.delenv(name, raising=False)

    def logged(self, run: Run) -> Numbers:
        assert run.folder is not None
        found: dict[str, dict[int, float]] = defaultdict(dict)
        for path in sorted(run.folder.glob(f"wandb/*{run.id}/*.wandb")):
            for record in self.whole(path):
                row = {"/".join(i.nested_key) or i.key: json.loads(i.value_json) for i in record.history.item}
                for name, value in row.items():
                    axis = name.partition("/")[0]
                    if name != f"{axis}/step" and f"{axis}/step" in row:
                        found[name][row[f"{axis}/step"]] = value
        return found

    def whole(self, path: Path) -> list[Any]:
        """All records of a run; its process writes the last ones after the run is finished here."""
        from wandb.proto import wandb_internal_pb2

        for _ in range(600):
            found = []
            for data in records(path.read_bytes()):
                found.append(wandb_internal_pb2.Record())
                found[-1].ParseFromString(data)
            if found and found[-1].WhichOneof("record_type") == "exit":
                return found
            time.sleep(0.05)
        raise AssertionError(f"{path} has no end")


def records(data: bytes) -> Iterator[bytes]:
    """What is in a log of LevelDB's format, which W&B keeps runs in: blocks of 32 KiB with parts of records."""
    place, whole = 7, b""
    while place + 7 <= len(data):
        if 32768 - place % 32768 < 7:
            place += 32768 - place % 32768
            continue
        length, kind = struct.unpack_from("<HB", data, place + 4)
        whole += data[place + 7 : place + 7 + length]
        place += 7 + length
        if kind in (1, 4):  # a whole one, or the last part
            yield whole
            whole = b""


class TestTrackio(TrackerContract):
    name = "trackio"

    def prepare(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("TRACKIO_DIR", str(folder))  # what holds is where it was when it was first imported
        monkeypatch.setenv("TRACKIO_PROJECT", folder.name)

    def logged(self, run: Run) -> Numbers:
        from trackio.sqlite_storage import SQLiteStorage

        found: dict[str, dict[int, float]] = defaultdict(dict)
        for row in SQLiteStorage.get_logs(os.environ["TRACKIO_PROJECT"], f"{run.name}-{run.id}"):
            for name, value in row.items():
                if "/" in name:
                    found[name][row["step"]] = value
        return found


class Fake:
    """A tracker that keeps what it is told, and breaks where a test wants it to."""

    told: ClassVar[list[Any]] = []
    breaks: ClassVar[str] = ""
    hangs: ClassVar[str] = ""
    released: ClassVar[threading.Event] = threading.Event()

    def __init__(self, run: Run) -> None:
        self.told.append(run)
        self._do("start")

    @staticmethod
    def missing() -> str | None:
        return None

    def store_configuration(self, configuration: Mapping[str, Any]) -> None:
        self.told.append(dict(configuration))
        self._do("store")

    def log(self, values: Mapping[str, float], step: int) -> None:
        self.told.append((dict(values), step))
        self._do("log")

    def finish(self, status: str) -> None:
        self.told.append(status)
        self._do("finish")

    def _do(self, what: str) -> None:
        if self.breaks == what:
            raise SystemExit("the server\nis down")
        if self.hangs == what:
            self.released.wait()


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> type[Fake]:
    for name, value in (("told", []), ("breaks", ""), ("hangs", ""), ("released", threading.Event())):
        monkeypatch.setattr(Fake, name, value)
    monkeypatch.setitem(TRACKERS._known(), "fake", f"{__name__}:Fake")
    return Fake


SMALL = ["--model", "job_networks:plain", "--weights", "none", "--data", "digits", "--export", "none"]
SMALL += ["--bench-seconds", "0", "--search-epochs", "1", "--finetune-epochs", "1", "--figs.max-steps", "6"]
JOB = [*SMALL, "--search", "figs", "--budget-flops", "60%", "-q"]


def test_a_job_is_told_to_its_trackers(fake: type[Fake], tmp_path: Path) -> None:
    assert main([*JOB, "--out", str(tmp_path / "out"), "--track", "fake"]) == 0
    run, configuration, *rest, last = fake.told
    assert (run.name, run.folder) == ("out", tmp_path / "out" / "tracking")
    assert configuration["budgets"] == {"flops": "60%"}
    assert configuration["track"] == ["fake"]
    assert last == "done"
    names = {name for values, _ in rest for name in values}
    assert {"search/loss", "finetune/loss", "top-1 accuracy/before", "result/flops", "seconds/search"} <= names
    assert [step for values, step in rest if "search/loss" in values] == list(range(1, 7))
    # A job that is complete begins no run.
    assert main([*JOB, "--out", str(tmp_path / "out"), "--track", "fake"]) == 0
    assert fake.told[-1] is last


@pytest.mark.parametrize("breaks", ["start", "store", "log", "finish"])
def test_one_that_is_down_ends_no_job(
    fake: type[Fake], breaks: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(fake, "breaks", breaks)
    assert main([*JOB, "--out", str(tmp_path / "out"), "--track", "fake,fake"]) == 0
    said = [line for line in capsys.readouterr().err.splitlines() if "fake is dropped" in line]
    assert len(said) == 1
    assert "SystemExit: the server is down" in said[0]
    lines = (tmp_path / "out" / "events.jsonl").read_text().splitlines()
    assert json.loads(lines[-1]) | {"time": ""} == {"time": "", "event": "JobEnded", "status": "done", "error": None}


@pytest.mark.parametrize("hangs", ["start", "log", "finish"])
def test_one_that_does_not_answer_ends_no_job(fake: type[Fake], hangs: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fake, "hangs", hangs)
    events = Events()
    began = time.monotonic()
    with events.job(JobBegan("a"), TrackerListener("fake", patience_s=0.05)):
        progress = StepEvents(events, "search")
        progress.start(50, 0)
        for step in range(50):
            progress.advance(step + 1, loss=1.0)
    assert time.monotonic() - began < 30
    assert events.warnings == [
        "The tracker fake is dropped (it has not finished within 0.05 s); the job goes on without it."
    ]
    fake.released.set()


def test_one_that_takes_nothing_is_dropped_before_memory_fills(
    fake: type[Fake], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(listening, "_MOST_WAITING", 20)
    monkeypatch.setattr(fake, "hangs", "start")
    events = Events()
    with events.job(JobBegan("a"), TrackerListener("fake")):
        progress = StepEvents(events, "search")
        progress.start(50, 0)
        for step in range(50):
            progress.advance(step + 1, loss=1.0)
    assert events.warnings == ["The tracker fake is dropped (it has not taken 20 numbers); the job goes on without it."]
    fake.released.set()


def test_ends_of_jobs(fake: type[Fake]) -> None:
    for error, status in ((KeyboardInterrupt, "interrupted"), (ValueError, "failed")):
        events = Events()
        with pytest.raises(error), events.job(JobBegan("a"), TrackerListener("fake")):
            raise error
        assert fake.told[-1] == status
        assert events.listeners == []


def test_what_is_not_there_is_refused_before_any_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    assert main([*JOB, "--out", str(out), "--track", "tensorbord"]) == 2
    assert "Did you mean tensorboard" in capsys.readouterr().err
    there = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *a: None if name == "wandb" else there(name, *a))
    assert main([*JOB, "--out", str(out), "--track", "wandb"]) == 2
    assert "pip install 'compressor[wandb]'" in capsys.readouterr().err
    assert not out.exists()
    with pytest.raises(MissingDependencyError, match="wandb"):
        TrackerListener("wandb")
    with pytest.raises(UsageError, match="Unknown tracker"):
        TrackerListener("nothing")
    for wrong in ({"name": 3}, {"run_name": ""}, {"folder": 3}, {"patience_s": -1}):
        with pytest.raises(UsageError, match=f"{next(iter(wrong))} must be"):
            TrackerListener(**{"name": "tensorboard", **wrong})


def test_a_job_that_stored_nothing_leaves_nothing(tmp_path: Path) -> None:
    for out in (tmp_path / "out", tmp_path / "out"):
        line = [*SMALL, "--search", "figs", "--budget-flops", "0.01%", "-q", "--out", str(out)]
        assert main([*line, "--track", "tensorboard"]) == 3
        assert not out.exists()


def test_options_that_only_tell_do_not_make_another_job(tmp_path: Path, fake: type[Fake]) -> None:
    assert main([*JOB, "--out", str(tmp_path / "out")]) == 0
    assert main([*JOB, "--out", str(tmp_path / "out"), "--track", "fake"]) == 0


def test_settings_side_by_side() -> None:
    assert flat({"a": {"b": {"c": 1}, "d": [1, 2]}, "e": None}) == {"a.b.c": 1, "a.d": "1,2", "e": None}
