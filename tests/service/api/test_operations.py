"""Health, metrics, the description of the API, names, and what every answer has."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI
from prometheus_client.parser import text_string_to_metric_families
from starlette.testclient import TestClient

from compressor.service.api.model_names import ModelNames, _made_by
from compressor.service.errors import StorageError
from compressor.service.logs import LOGGER, _Json, _Text, current_job
from compressor.service.services import Services

Made = Callable[..., dict[str, Any]]


def test_health(app: FastAPI, client: TestClient, parts: Services, monkeypatch: pytest.MonkeyPatch) -> None:
    for path in ("/healthz", "/v1/healthz"):
        assert client.get(path).json()["status"] == "ok"
    assert client.get("/readyz").status_code == 200

    def away() -> None:
        raise StorageError("The artefacts cannot be reached.")

    with monkeypatch.context() as patched:
        patched.setattr(parts.store, "check", away)
        answer = client.get("/readyz")
        assert (answer.status_code, client.get("/healthz").status_code) == (503, 200)
        assert "artefacts" in answer.json()["detail"]
    assert client.get("/readyz").status_code == 200
    app.state.closing.set()
    assert client.get("/readyz").status_code == 503


def test_metrics_tell_of_jobs_workers_and_latencies(client: TestClient, submit: Made, claim: Made) -> None:
    submit()
    job = submit()["id"]
    first = claim()
    client.post(f"/v1/work/{first['job']['id']}/end", json={"token": first["token"], "state": "done"})
    client.get("/v1/nowhere/at/all")
    text = client.get("/metrics").text
    samples = {
        (sample.name, *sorted(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }
    assert samples["compressor_jobs", ("state", "queued")] == 1
    assert samples["compressor_jobs", ("state", "done")] == 1
    assert samples["compressor_workers",] == 1
    assert samples["compressor_watchers",] == 0
    assert samples["compressor_queue_wait_seconds_count",] == 1
    assert samples["compressor_job_seconds_count", ("kind", "compress"), ("state", "done")] == 1
    routes = {dict(key[1:])["route"] for key in samples if key[0] == "compressor_http_seconds_count"}
    assert "/v1/jobs" in routes
    assert "/v1/work/{job_id}/end" in routes
    assert all(job not in route for route in routes)


def test_nothing_is_loaded_from_elsewhere(client: TestClient) -> None:
    assert client.get("/docs").status_code in (303, 404)
    assert client.get("/redoc").status_code in (303, 404)


@pytest.mark.parametrize("path", ["/healthz", "/readyz", "/v1/healthz", "/v1/readyz"])
def test_health_is_told_to_those_who_want_no_body(client: TestClient, path: str) -> None:
    assert client.head(path).status_code == client.get(path).status_code == 200


@pytest.mark.parametrize("path", ["/v1/jobs", "/healthz", "/metrics", "/v1/nothing", "/v1/jobs/0000/files/x"])
def test_every_answer_tells_browsers_to_be_careful(client: TestClient, path: str) -> None:
    headers = client.get(path).headers
    assert headers["x-content-type-options"] == "nosniff"
    policy = headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "frame-ancestors" in policy
    assert "unsafe-inline" not in policy.partition("script-src")[2]


@pytest.mark.parametrize("method", ["PUT", "PATCH", "DELETE", "TRACE"])
def test_other_methods_are_problems(client: TestClient, method: str) -> None:
    answer = client.request(method, "/v1/jobs")
    assert answer.status_code == 405
    assert answer.headers["content-type"] == "application/problem+json"


def test_names_of_models_are_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []
    monkeypatch.setattr("compressor.service.api.model_names._asked", lambda: asked.append(1) or ["resnet18"])
    file = tmp_path / "models.json"
    names = ModelNames(file)
    assert names.models_if_known() is None
    assert names.models() == names.models() == ["resnet18"]
    assert ModelNames(file).models_if_known() == ["resnet18"]
    assert len(asked) == 1
    document = json.loads(file.read_text())
    assert document["made_by"] == _made_by()
    file.write_text(json.dumps({**document, "made_by": "another version"}))
    assert ModelNames(file).models_if_known() is None
    file.write_text("{")
    assert ModelNames(file).models_if_known() is None


def test_names(app: FastAPI, client: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(app.state.names, "models", lambda: ["resnet18", "resnet50", "vgg11"])
    assert client.get("/v1/models", params={"q": "resnet*"}).json() == {"models": ["resnet18", "resnet50"]}
    assert client.get("/v1/models", params={"q": "gg"}).json() == {"models": ["vgg11"]}
    targets = {each["target"]: each for each in client.get("/v1/targets").json()["targets"]}
    assert targets["onnxruntime-cpu"]["kind"] == "runtime"
    names = [each["name"] for each in client.get("/v1/datasets").json()["datasets"]]
    assert names == ["digits", "listops"]
    client.post("/v1/work/claim", json={"worker": "w1", "labels": ["gpu"]})
    assert [each["name"] for each in client.get("/v1/workers").json()["workers"]] == ["w1"]


def test_a_line_of_the_log_has_the_job(client: TestClient, submit: Made, caplog: pytest.LogCaptureFixture) -> None:
    job = submit()["id"]
    logging.getLogger(LOGGER).propagate = True
    with caplog.at_level(logging.INFO, logger=LOGGER):
        client.get(f"/v1/jobs/{job}")
    record = next(each for each in caplog.records if each.name.startswith(LOGGER) and getattr(each, "job", None) == job)
    document = json.loads(_Json().format(record))
    assert (document["route"], document["status"], document["who"]) == ("/v1/jobs/{job_id}", 200, "local")
    assert f"job={job}" in _Text().format(record)


def test_lines_of_the_log_are_lines(caplog: pytest.LogCaptureFixture) -> None:
    record = logging.LogRecord(LOGGER, logging.INFO, "", 0, "a\x1b[2Jb \u202e%s", ("c",), None)
    token = current_job.set("0197")
    try:
        assert "\x1b" not in _Text().format(record)
        assert json.loads(_Json().format(record))["job"] == "0197"
    finally:
        current_job.reset(token)
