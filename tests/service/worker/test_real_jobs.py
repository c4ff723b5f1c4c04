"""Real compressions by the child that the product runs: what the command line makes, bit for bit, and errors alike."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from compressor.jobs.recipes.run import run
from compressor.models import artifact
from compressor.service.worker.config import WorkerConfig
from compressor.service.worker.loop import Worker
from tests.service.worker.fake_server import FakeJob, FakeServer

pytestmark = pytest.mark.slow
PLAIN = {"model": "resnet20_cifar", "weights": "none", "input_shape": [3, 32, 32], "bench_seconds": 0.0, "export": []}
TRAINED = {
    **PLAIN,
    "data": "digits",
    "input_shape": None,
    "search": "figs",
    "figs": {"least_steps": 0},
    "budgets": {"flops": "50%"},
    "train_epochs": 1,
    "search_epochs": 2,
    "finetune_epochs": 1,
}


@pytest.fixture
def real(config: Callable[..., WorkerConfig]) -> Callable[..., WorkerConfig]:
    """Settings of a worker with the real child."""

    def made(**more: Any) -> WorkerConfig:
        return config(**{"work": "compressor.service.worker.work:run", "code": "no", "python_path": (), **more})

    return made


def outcome(folder: Path) -> dict[str, Any]:
    """What must not depend on where and how often a job ran."""
    report = artifact.load_whole_report(folder)
    return {
        "weights": (folder / "model.safetensors").read_bytes(),
        "architecture": json.loads((folder / "architecture.json").read_text()),
        "budgets": report.budgets,
        "accuracy": report.accuracy,
        "history": report.history,
        "warnings": report.warnings,
        "command": report.command,
    }


def fetched(server: FakeServer, job: FakeJob, folder: Path) -> Path:
    for path in job.files:
        place = folder / path
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(server.file(job, path))
    return folder


def recipe(values: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in values.items() if value is not None}


def test_a_job_makes_what_the_command_line_makes(
    server: FakeServer, real: Callable[..., WorkerConfig], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = recipe({**PLAIN, "budgets": {"flops": "50%"}, "export": ["onnx"]})
    job = server.submit("one", told)
    Worker(real(), jobs=1).run()
    assert (job.state, job.error) == ("done", None)
    monkeypatch.chdir(tmp_path)
    run(told, out="result")
    assert outcome(fetched(server, job, tmp_path / "fetched")) == outcome(tmp_path / "result")
    assert {"StageBegan", "StageEnded", "Decision", "FileWritten", "JobBegan", "JobEnded"} <= set(job.kinds)
    assert "model.onnx" in job.files


@pytest.mark.parametrize(
    ("told", "code", "text"),
    [
        ({"budgets": {"flops": "0.01%"}}, 3, "smallest"),
        ({"budgets": {"flops": "50%"}, "model": "resnet21_cifar"}, 2, "resnet21_cifar"),
        ({"budgets": {"flops": "50%"}, "weights": "upload:01ab"}, 2, "upload:01ab"),
    ],
)
def test_errors_are_those_of_the_command_line(
    server: FakeServer, real: Callable[..., WorkerConfig], told: dict[str, Any], code: int, text: str
) -> None:
    job = server.submit("one", recipe({**PLAIN, **told}))
    Worker(real(), jobs=1).run()
    assert job.state == "failed"
    assert job.error is not None
    assert job.error["exit_code"] == code
    assert text in job.error["text"]
    assert "\n" not in job.error["text"]


def test_a_sweep_and_a_pick_of_it(server: FakeServer, real: Callable[..., WorkerConfig], tmp_path: Path) -> None:
    sweep = server.submit("sweep", recipe({**PLAIN, "budgets": {"flops": ["40%", "70%"]}}), kind="sweep")
    Worker(real(), jobs=1).run()
    assert (sweep.state, sweep.error) == ("done", None)
    assert {"front.json", "sweep.json"} <= set(sweep.files)
    stages = [event["body"]["stage"] for event in sweep.events if event["event"] == "StageBegan"]
    assert len({stage for stage in stages if stage.endswith(" search")}) == 2  # of each point by its name
    assert "JobEnded" not in sweep.kinds
    listed = [
        {"path": path, "sha256": content, "bytes": len(server.blobs[content])} for path, content in sweep.files.items()
    ]
    told = {"budgets": {"flops": "50%"}, "export": ["onnx"]}
    picked = server.submit("pick", told, kind="pick", parent="sweep", parent_files=listed)
    Worker(real(), jobs=1).run()
    assert (picked.state, picked.error) == ("done", None)
    report = artifact.load_report(fetched(server, picked, tmp_path / "picked"))
    assert report.budgets[0].reached <= report.budgets[0].limit
    assert "model.onnx" in picked.files


@pytest.mark.slow
def test_points_side_by_side_tell_their_stages_while_they_run(
    server: FakeServer, real: Callable[..., WorkerConfig]
) -> None:
    told = recipe({**PLAIN, "budgets": {"flops": ["40%", "70%"]}, "workers": 2})
    sweep = server.submit("sweep", told, kind="sweep")
    Worker(real(), jobs=1).run()
    assert (sweep.state, sweep.error) == ("done", None)
    began = {e["body"]["stage"]: e for e in sweep.events if e["event"] == "StageBegan"}
    searches = [event for stage, event in began.items() if stage.endswith(" search")]
    assert len({event["body"]["point"] for event in searches}) == 2
    assert "JobEnded" not in sweep.kinds


def test_a_job_reads_arrays_of_an_upload(server: FakeServer, real: Callable[..., WorkerConfig], tmp_path: Path) -> None:
    draw = np.random.default_rng(0)
    x, y = draw.normal(size=(120, 3, 8, 8)).astype("float32"), draw.integers(0, 3, 120)
    np.savez(tmp_path / "data.npz", x_train=x, y_train=y, x_test=x[:30], y_test=y[:30])
    data = (tmp_path / "data.npz").read_bytes()
    upload = {"id": "01ab", "name": "mine.npz", "kind": "arrays", "sha256": server.keep(data), "bytes": len(data)}
    told = {**PLAIN, "input_shape": None, "data": "upload:01ab", "budgets": {"flops": "60%"}, "finetune_epochs": 1}
    job = server.submit("one", recipe({**told, "search": "oneshot"}), uploads=[upload])
    Worker(real(), jobs=1).run()
    assert (job.state, job.error) == ("done", None)
    assert artifact.load_report(fetched(server, job, tmp_path / "fetched")).data == "npz:uploads/01ab.npz"


def test_a_job_that_moves_between_workers_ends_with_the_same_bits(
    server: FakeServer, real: Callable[..., WorkerConfig], tmp_path: Path
) -> None:
    """Its worker is stopped in each stage, and another one goes on from what was stored."""
    longer = recipe({**TRAINED, "finetune_epochs": 4})
    undisturbed = server.submit("undisturbed", longer)
    Worker(real(), jobs=1).run()
    assert (undisturbed.state, undisturbed.error) == ("done", None)
    job = server.submit("moved", longer)
    for stage in ("train", "search", "finetune"):
        worker = Worker(real(name=f"until-{stage}", snapshot_seconds=0.5), jobs=1)

        def stop(worker: Worker = worker, stage: str = stage) -> None:
            began = [e for e in job.events if e["event"] == "StageBegan" and e["body"]["stage"] == stage]
            while not began and job.state != "done":
                time.sleep(0.05)
                began = [e for e in job.events if e["event"] == "StageBegan" and e["body"]["stage"] == stage]
            worker.stop()

        import threading

        thread = threading.Thread(target=stop)
        thread.start()
        worker.run()
        thread.join()
    if job.state != "done":  # else there is none to wait for
        Worker(real(name="last"), jobs=1).run()
    assert (job.state, job.error) == ("done", None)
    assert job.attempt >= 3
    fresh, moved = (fetched(server, each, tmp_path / each.id) for each in (undisturbed, job))
    assert outcome(moved) == outcome(fresh)


def test_code_of_the_user_runs_where_it_is_allowed(server: FakeServer, real: Callable[..., WorkerConfig]) -> None:
    place = Path(__file__).resolve().parents[2] / "cli"
    told = recipe({**PLAIN, "model": "job_networks:plain", "input_shape": [1, 8, 8], "budgets": {"flops": "50%"}})
    job = server.submit("one", told)
    Worker(real(code="sandboxed", python_path=(str(place),)), jobs=1).run()
    assert (job.state, job.error) == ("done", None)
