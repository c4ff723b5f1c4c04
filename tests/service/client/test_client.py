"""The client against a server that runs: what is submitted arrives, and what was made comes back."""

from __future__ import annotations

import io
import json
import zipfile
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import torch
from safetensors.torch import save_file

import compressor
from compressor.errors import CompressorError, UnreachableBudgetError, UsageError
from compressor.pipeline import events as told
from compressor.service.client.connection import API
from compressor.service.client.errors import JobCancelledError, ServerAwayError
from compressor.service.errors import ConflictError, NotFoundError, TooLargeError
from tests.service.client.conftest import Server

RECIPE: dict[str, Any] = {"model": "resnet20_cifar", "weights": "none", "budgets": {"flops": "50%"}}
EVENTS = [
    told.JobBegan("small"),
    told.StageBegan("search"),
    told.TrainingBegan("search", 0, 2),
    told.Step("search", 1, 2, {"loss": 1.0}),
    told.Step("search", 2, 2, {"loss": 0.5}),
    told.TrainingEnded("search"),
    told.StageEnded("search", 1.0),
    told.JobEnded("done"),
]
FILES = {"report.json": b'{"schema_version": 1}', "model.safetensors": b"m" * 5000, ".job/stages/search.json": b"{}"}


def test_a_job_from_its_submission_to_its_files(server: Server, tmp_path: Path) -> None:
    with server.client() as client:
        job = client.submit(RECIPE, name="mine", priority=3)
        status = job.status()
        assert (status["state"], status["name"], status["priority"]) == ("queued", "mine", 3)
        assert status["recipe"]["budgets"] == {"flops": "50%"}
        assert [each["id"] for each in client.jobs("queued", query="min")] == [job.id]
        assert client.jobs("done") == []
        assert server.work(EVENTS, FILES) == job.id
        seen: list[told.Event] = []
        assert job.wait(seen.append)["state"] == "done"
        assert seen == EVENTS
        kinds = [event.kind for event in job.events()]
        assert kinds[-1] == "end"
        first = next(iter(job.events()))
        assert [event.kind for event in job.events(after=first.id)] == kinds[1:]
        assert job.report() == {"schema_version": 1}
        paths = job.fetch(tmp_path / "out")
        assert {str(p.relative_to(tmp_path / "out")) for p in paths} == {"report.json", "model.safetensors"}
        assert (tmp_path / "out" / "model.safetensors").read_bytes() == FILES["model.safetensors"]
        assert job.fetch(tmp_path / "one", ["report.json"]) == [tmp_path / "one" / "report.json"]
        with pytest.raises(UsageError, match=r"has no file 'other'; it has model\.safetensors, report\.json"):
            job.fetch(tmp_path / "one", ["other"])


def test_what_lies_here_is_uploaded(server: Server, tmp_path: Path) -> None:
    weights, arrays, images = tmp_path / "w.safetensors", tmp_path / "d.npz", tmp_path / "images"
    save_file({"a": torch.arange(30_000.0)}, weights)
    np.savez(arrays, x_train=np.zeros((4, 1, 8, 8), "f4"), y_train=np.zeros(4, "i8"))
    from PIL import Image

    for number, name in enumerate(("train/cat/1.png", "train/dog/2.png")):
        (images / name).parent.mkdir(parents=True)
        Image.new("RGB", (8, 8), (number, 0, 0)).save(images / name)
    with server.client() as client:
        first = client.submit({**RECIPE, "weights": str(weights), "data": f"npz:{arrays}"})
        second = client.submit({**RECIPE, "data": f"imagefolder:{images}"})
        found, images_there = first.status()["recipe"], second.status()["recipe"]["data"]
        assert found["weights"].startswith("upload:")
        assert found["data"].startswith("upload:")
    for reference, kind, file in ((found["weights"], "weights", weights), (found["data"], "arrays", arrays)):
        upload = server.services.uploads.get(reference.removeprefix("upload:"))
        assert (upload.kind, upload.name, upload.state) == (kind, file.name, "done")
        assert upload.sha256 is not None
        with server.services.blobs.open(upload.sha256) as stream:
            assert stream.read() == file.read_bytes()
    upload = server.services.uploads.get(images_there.removeprefix("upload:"))
    assert (upload.kind, upload.state) == ("images", "done")
    assert upload.sha256 is not None
    with server.services.blobs.open(upload.sha256) as stream, zipfile.ZipFile(io.BytesIO(stream.read())) as packed:
        assert packed.namelist() == ["train/cat/1.png", "train/dog/2.png"]


def test_what_is_too_large_or_no_weights_is_refused(server: Server, tmp_path: Path) -> None:
    large, wrong = tmp_path / "large.safetensors", tmp_path / "wrong.safetensors"
    save_file({"a": torch.zeros(300_000)}, large)
    wrong.write_bytes(b"nothing of the kind")
    with server.client() as client:
        with pytest.raises(TooLargeError):
            client.submit({**RECIPE, "weights": str(large)})
        with pytest.raises(UsageError):
            client.submit({**RECIPE, "weights": str(wrong)})
        assert client.jobs() == []


def test_recipes_in_files_and_sweeps(server: Server, tmp_path: Path) -> None:
    file = tmp_path / "job.yaml"
    file.write_text("model: resnet20_cifar\nweights: none\nbudgets: {flops: 40%}\n")
    swept = tmp_path / "sweep.json"
    swept.write_text(json.dumps({**RECIPE, "budgets": {"flops": ["25%", "50%"]}}))
    with server.client() as client:
        assert client.submit(file).status()["recipe"]["budgets"] == {"flops": "40%"}
        sweep = client.submit(swept, kind="sweep").status()
        assert (sweep["kind"], sweep["recipe"]["budgets"]) == ("sweep", {"flops": ["25%", "50%"]})
        assert client.submit({**RECIPE, "budgets": {"flops": ["25%", "50%"]}}).status()["kind"] == "sweep"
        with pytest.raises(UsageError, match="lut"):
            client.submit({**RECIPE, "lut": "/etc/passwd"})
        with pytest.raises(UsageError, match="must be a file, a folder or a mapping"):
            client.submit(3)  # type: ignore[arg-type]


def test_ends_of_jobs(server: Server) -> None:
    with server.client() as client:
        failed = client.submit(RECIPE)
        server.work([], {}, "failed", {"kind": "UnreachableBudgetError", "text": "1% is too low.", "exit_code": 3})
        with pytest.raises(UnreachableBudgetError, match="1% is too low"):
            failed.wait()
        failed.retry()
        assert failed.status()["state"] == "queued"
        failed.cancel()
        with pytest.raises(JobCancelledError) as raised:
            failed.wait()
        assert raised.value.exit_code == 130
        with pytest.raises(ConflictError):
            failed.pick({"flops": "30%"})
        with pytest.raises(UsageError, match="has written nothing yet"):
            failed.fetch("nowhere")
        assert not Path("nowhere").exists()


def test_names_that_are_known_there(server: Server) -> None:
    with server.client() as client:
        assert client.devices() == []
        with pytest.raises(NotFoundError):
            client.job("0" * 20).status()
        with pytest.raises(CompressorError, match="This path climbs"):
            client.job("../../healthz").status()
    with pytest.raises(UsageError, match="A job has an id"):
        client.job("")


def test_a_server_that_has_gone(server: Server) -> None:
    client = compressor.Client("http://127.0.0.1:9")
    with pytest.raises(ServerAwayError, match="No service answers at"):
        client.jobs()


def test_the_environment_says_which_service(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COMPRESSOR_SERVER", server.url)
    monkeypatch.setenv("COMPRESSOR_KEY", "k" * 40)
    with compressor.Client() as client:
        assert client.url == server.url


def test_a_sweep_s_report_is_its_front(server: Server) -> None:
    with server.client() as client:
        sweep = client.submit({**RECIPE, "budgets": {"flops": ["25%", "50%"]}})
        server.work([], {"front.json": b'{"kind": "sweep"}', "flops-25pct/report.json": b"{}"})
        assert sweep.report() == {"kind": "sweep"}
        picked = sweep.pick({"flops": "40%"}, export=["onnx"]).status()
        assert (picked["kind"], picked["parent"], picked["state"]) == ("pick", sweep.id, "queued")


def test_every_answer_says_which_version_of_the_api_it_is(server: Server) -> None:
    for path in ("/v1/jobs", "/v1/jobs/nope", "/v1/nothing"):
        assert httpx.get(f"{server.url}{path}").headers["Compressor-API"] == str(API)
