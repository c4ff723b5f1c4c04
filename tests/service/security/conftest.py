"""A server, and two teams on it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

from compressor.service.api.app import create_app
from compressor.service.records import NewJob
from compressor.service.services import Services
from tests.service.fixtures import ServicesMaker
from tests.service.security.scenes import LOCAL, MARK, RECIPE, done_job
from tests.service.strangers import Caller, World


@pytest.fixture
def services(make_services: ServicesMaker, sqlite_url: str) -> Services:
    return make_services(sqlite_url, real_clock=True, upload_bytes=1 << 20, workers=0)


@pytest.fixture
def app(services: Services) -> Iterator[FastAPI]:
    made = create_app(services)
    made.state.names.models = lambda: ["resnet20_cifar"]  # else a process is started that imports everything
    with TestClient(made):  # runs what the app does as it starts
        yield made


@pytest.fixture
def local(app: FastAPI) -> Caller:
    """A browser or program on a machine whose server has no keys."""
    return Caller(app, **LOCAL)


@pytest.fixture
def world(app: FastAPI, services: Services) -> World:
    """Two teams: alpha, whose things these are, and beta, whose key asks."""
    report = json.dumps({"model": MARK}).encode()
    job = done_job(
        services, "alpha", MARK, {"report.json": report, "report.html": b"<p>" + MARK.encode(), "x.onnx": b"1"}
    )
    upload = services.uploads.begin("alpha", f"{MARK}.npz", "arrays", 10, submitted_by="key:a")
    queued = services.jobs.submit(NewJob(project="alpha", recipe=RECIPE, name=MARK, priority=1000))
    keys = app.state.access.keys
    alpha, _ = keys.create(MARK, project="alpha", by="test")
    _, stranger = keys.create("stranger", project="beta", scopes=["read", "submit", "agent", "admin"], by="test")
    scoped = {
        s: keys.create(f"{s} alone", project=None, scopes=[s], by="test")[1]
        for s in ("read", "submit", "agent", "admin")
    }
    sha256 = services.files.get(job, "report.json").sha256
    owned = {
        "job_id": job,
        "upload_id": upload.id,
        "sha256": sha256,
        "path": "report.json",
        "key_id": alpha.id,
        "name": "jetson-1",
        "device": "jetson-1",
        "session_id": "0" * 20,
        "session": "0" * 20,
        "job": job,
    }
    token = {"token": "x" * 32}
    bodies: dict[str, Any] = {
        "POST /v1/jobs/{job_id}/priority": {"priority": 1},
        "POST /v1/jobs/{job_id}/pick": {"budgets": {"flops": "50%"}},
        "PATCH /v1/uploads/{upload_id}": b"x",
        "POST /v1/work/claim": {"worker": "w", "labels": [], "version": "0", "wait_seconds": 0},
        "PUT /v1/work/blobs/{sha256}": b"x",
        "POST /v1/work/{job_id}/renew": token,
        "POST /v1/work/{job_id}/events": {**token, "events": []},
        "POST /v1/work/{job_id}/snapshot": {**token, "files": []},
        "POST /v1/work/{job_id}/end": {**token, "state": "done", "error": None},
        "POST /v1/work/{job_id}/release": token,
        "POST /v1/work/{job}/device": {**token, "name": "jetson-1"},
        "POST /v1/work/{job}/device/{session}": {
            **token,
            "key": "k",
            "request": {"operation": "open"},
            "wait_seconds": 0,
        },
        "POST /v1/work/{job}/device/{session}/table": token,
        "POST /v1/work/{job}/device/{session}/calibrations": {**token, "target": "t", "reference_ms": 1, "models": {}},
        "POST /v1/work/{job}/device/{session}/close": token,
        "POST /jobs/{job_id}/priority": {"priority": "1"},
        "POST /jobs/{job_id}/delete": {"sure": "yes"},
        "POST /jobs/{job_id}/pick": {"flops": "50%"},
    }
    return World(app, owned, (MARK, job, upload.id, queued.id, alpha.id), stranger, scoped, bodies)
