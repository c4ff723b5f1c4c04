"""What workers say: every write carries the lease's token, and an old one writes nothing."""

from __future__ import annotations

import hashlib
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest
from fastapi import FastAPI
from starlette.testclient import TestClient

from compressor.service.services import Services
from tests.service.api.conftest import RECIPE

Made = Callable[..., dict[str, Any]]
EVENT = {"number": 0, "time": "2026-03-02T09:00:00Z", "event": "StageBegan", "body": {"stage": "search"}}


def digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def put(client: TestClient, data: bytes, sha256: str | None = None) -> Any:
    headers = {"Content-Type": "application/octet-stream"}
    return client.put(f"/v1/work/blobs/{sha256 or digest(data)}", content=data, headers=headers)


def test_a_job_from_claim_to_end(client: TestClient, submit: Made, claim: Made) -> None:
    job = submit()["id"]
    taken = claim()
    token = taken["token"]
    assert taken["job"]["id"] == job
    assert taken["job"]["recipe"]["model"] == "resnet20_cifar"
    assert taken["files"] == taken["uploads"] == taken["parent_files"] == []
    renewed = client.post(f"/v1/work/{job}/renew", json={"token": token, "stage": "search", "done": 3, "total": 9})
    assert renewed.json() == {"cancel": False}
    assert client.get(f"/v1/jobs/{job}").json()["progress"] == {"stage": "search", "done": 3, "total": 9}
    said = {"token": token, "events": [EVENT, {**EVENT, "number": 1, "event": "TrialEnded", "body": {"number": 4}}]}
    last = client.post(f"/v1/work/{job}/events", json=said).json()["last"]
    assert client.post(f"/v1/work/{job}/events", json=said).json()["last"] == last  # again is harmless
    headers = {"Accept": "application/json"}
    events = client.get(f"/v1/jobs/{job}/events", headers=headers).json()["events"]
    assert [each["event"] for each in events if each["event"] != "state"] == ["StageBegan", "TrialEnded"]
    assert events[-1]["number"] == 4
    assert put(client, b"network").status_code == 201
    files = [{"path": "model.onnx", "sha256": digest(b"network"), "bytes": 7}]
    assert client.post(f"/v1/work/{job}/snapshot", json={"token": token, "files": files}).json() == {"missing": []}
    ended = client.post(f"/v1/work/{job}/end", json={"token": token, "state": "done"})
    assert ended.json() == {"id": job, "state": "done"}
    assert client.get(f"/v1/jobs/{job}/files/model.onnx").content == b"network"


def test_an_old_token_writes_nothing(client: TestClient, submit: Made, claim: Made, parts: Services) -> None:
    job = submit()["id"]
    old = claim()["token"]
    client.post(f"/v1/work/{job}/release", json={"token": old})
    new = claim()["token"]
    put(client, b"x")
    files = [{"path": "x", "sha256": digest(b"x"), "bytes": 1}]
    for path, body in (
        ("renew", {"stage": "stolen"}),
        ("events", {"events": [EVENT]}),
        ("snapshot", {"files": files}),
        ("end", {"state": "done"}),
        ("release", {}),
    ):
        for token in (old, "x"):
            answer = client.post(f"/v1/work/{job}/{path}", json={"token": token, **body})
            assert answer.status_code == 409, path
    found = client.get(f"/v1/jobs/{job}").json()
    assert (found["state"], found["stage"], found["attempt"]) == ("running", None, 2)
    assert parts.files.list(job) == []
    assert client.post(f"/v1/work/{job}/end", json={"token": new, "state": "done"}).status_code == 200


def test_a_cancelled_job_is_told_at_the_next_renewal(client: TestClient, submit: Made, claim: Made) -> None:
    job, token = submit()["id"], claim()["token"]
    client.post(f"/v1/jobs/{job}/cancel")
    assert client.post(f"/v1/work/{job}/renew", json={"token": token}).json() == {"cancel": True}
    client.post(f"/v1/work/{job}/end", json={"token": token, "state": "cancelled"})
    assert client.get(f"/v1/jobs/{job}").json()["state"] == "cancelled"


def test_a_failure_is_told_with_its_class(client: TestClient, submit: Made, claim: Made) -> None:
    job, token = submit()["id"], claim()["token"]
    error = {"kind": "UnreachableBudgetError", "text": "The budget cannot be reached.", "exit_code": 3}
    client.post(f"/v1/work/{job}/end", json={"token": token, "state": "failed", "error": error})
    assert client.get(f"/v1/jobs/{job}").json()["error"] == error


def test_a_worker_waits_until_a_job_comes(app: FastAPI, client: TestClient) -> None:
    found: list[Any] = []

    def wait() -> None:
        found.append(client.post("/v1/work/claim", json={"worker": "w", "wait_seconds": 30}))

    waiting = threading.Thread(target=wait)
    waiting.start()
    time.sleep(0.2)
    assert found == []
    began = time.monotonic()
    client.post("/v1/jobs", json=RECIPE)
    waiting.join(20)
    assert time.monotonic() - began < 20
    assert found[0].status_code == 200


def test_a_worker_that_waits_is_let_go_when_the_server_stops(app: FastAPI, client: TestClient) -> None:
    found: list[int] = []

    def wait() -> None:
        found.append(client.post("/v1/work/claim", json={"worker": "w", "wait_seconds": 60}).status_code)

    waiting = threading.Thread(target=wait)
    waiting.start()
    time.sleep(0.2)
    app.state.closing.set()
    waiting.join(20)
    assert found == [204]


def test_a_snapshot_of_what_is_not_there_names_it(client: TestClient, submit: Made, claim: Made) -> None:
    job, token = submit()["id"], claim()["token"]
    put(client, b"there")
    files = [
        {"path": "a", "sha256": digest(b"there"), "bytes": 5},
        {"path": "b", "sha256": digest(b"missing"), "bytes": 7},
    ]
    answer = client.post(f"/v1/work/{job}/snapshot", json={"token": token, "files": files})
    assert (answer.status_code, answer.json()["missing"]) == (409, [digest(b"missing")])
    assert client.get(f"/v1/jobs/{job}/files").json()["files"] == []


@pytest.mark.parametrize("path", ["../x", "/etc/passwd", "a/../../b", "a//b", "a\\b", "a\x00b", "."])
def test_a_snapshot_stays_in_its_folder(client: TestClient, submit: Made, claim: Made, path: str) -> None:
    job, token = submit()["id"], claim()["token"]
    put(client, b"x")
    files = [{"path": path, "sha256": digest(b"x"), "bytes": 1}]
    answer = client.post(f"/v1/work/{job}/snapshot", json={"token": token, "files": files})
    assert answer.status_code == 422


def test_contents_are_what_their_name_says(app: FastAPI, client: TestClient) -> None:
    client.headers["Authorization"] = f"Bearer {app.state.access.run_secret('local-1')}"
    assert put(client, b"abc", digest(b"other")).status_code == 422
    assert client.head(f"/v1/work/blobs/{digest(b'other')}").status_code == 404
    assert put(client, b"").status_code == 201
    assert put(client, b"abc").json() == {"sha256": digest(b"abc"), "bytes": 3}
    assert put(client, b"abc").status_code == 201
    assert client.head(f"/v1/work/blobs/{digest(b'abc')}").status_code == 200
    assert client.put("/v1/work/blobs/..%2f..%2fx", content=b"x").status_code in (400, 404, 405, 415, 422)
    assert put(client, b"x", "A" * 64).status_code == 422


def test_contents_go_to_the_worker_whose_job_has_them(client: TestClient, submit: Made, claim: Made) -> None:
    submit()
    taken = claim()
    put(client, b"abc")
    files = [{"path": "x", "sha256": digest(b"abc"), "bytes": 3}]
    client.post(f"/v1/work/{taken['job']['id']}/snapshot", json={"token": taken["token"], "files": files})
    place, lease = f"/v1/work/blobs/{digest(b'abc')}", {"X-Lease-Token": taken["token"]}
    assert client.get(place).status_code == 404
    assert client.get(place, headers=lease).content == b"abc"
    part = client.get(place, headers={**lease, "Range": "bytes=1-"})
    assert (part.status_code, part.content) == (206, b"bc")


def test_contents_that_are_too_large_are_refused(client: TestClient) -> None:
    assert put(client, b"x" * ((1 << 20) + 1)).status_code == 413


def test_contents_without_a_length_are_counted(client: TestClient) -> None:
    def pieces() -> Any:
        for _ in range(20):
            yield b"x" * 100_000

    headers = {"Content-Type": "application/octet-stream"}
    answer = client.put(f"/v1/work/blobs/{digest(b'x')}", content=pieces(), headers=headers)
    assert answer.status_code == 413
    assert client.head(f"/v1/work/blobs/{digest(b'x')}").status_code == 404


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("claim", {}),
        ("claim", {"worker": ""}),
        ("claim", {"worker": "w", "wait_seconds": 1e9}),
        ("claim", {"worker": "w", "labels": "x"}),
        ("claim", {"worker": "w", "shell": "x"}),
        ("JOB/renew", {"token": ""}),
        ("JOB/renew", {"token": "x", "done": -1}),
        ("JOB/events", {"token": "x", "events": [{"number": 0}]}),
        ("JOB/events", {"token": "x", "events": [{**EVENT, "time": "today"}]}),
        ("JOB/end", {"token": "x", "state": "queued"}),
        ("JOB/end", {"token": "x", "state": "failed", "error": {"kind": "x"}}),
        ("JOB/snapshot", {"token": "x", "files": [{"path": "a", "sha256": "b", "bytes": 1}]}),
    ],
)
def test_what_workers_cannot_say(client: TestClient, submit: Made, path: str, body: dict[str, Any]) -> None:
    place = path.replace("JOB", submit()["id"]) if "JOB" in path else path
    answer = client.post(f"/v1/work/{place}", json=body)
    assert (answer.status_code, answer.json()["exit_code"]) == (422, 2)


@pytest.mark.parametrize(
    ("time", "kept"),
    [
        ("9999-12-31T23:59:59-14:00", None),
        ("0001-01-01T00:00:00+14:00", None),
        ("0001-01-01T00:00:00", "0001-01-01T00:00:00.000Z"),
        ("2026-03-02T09:00:00+02:00", "2026-03-02T07:00:00.000Z"),
    ],
)
def test_times_of_events_are_kept_in_utc(
    client: TestClient, submit: Made, claim: Made, time: str, kept: str | None
) -> None:
    job = submit()["id"]
    event = {"number": 0, "time": time, "event": "Step", "body": {}}
    answer = client.post(f"/v1/work/{job}/events", json={"token": claim()["token"], "events": [event]})
    if kept is None:
        assert (answer.status_code, answer.json()["key"]) == (422, "events.0.time")
        return
    found = client.get(f"/v1/jobs/{job}/events", headers={"Accept": "application/json"}).json()["events"]
    assert [each["time"] for each in found if each["event"] == "Step"] == [kept]


def test_only_agents_work(app: FastAPI, parts: Services, client: TestClient) -> None:
    key = app.state.access.keys.create("reader", scopes=["read", "submit"], by="test")[1]
    headers = {"Authorization": f"Bearer {key}"}
    assert client.post("/v1/work/claim", json={"worker": "w"}, headers=headers).status_code == 403
    assert client.get(f"/v1/work/blobs/{digest(b'x')}", headers=headers).status_code == 403
    local = {"Authorization": f"Bearer {app.state.access.run_secret('local-1')}"}
    assert client.post("/v1/work/claim", json={"worker": "w"}, headers=local).status_code == 204
    assert client.get("/v1/jobs", headers=local).status_code == 403
    assert client.post("/v1/work/claim", json={"worker": "w"}).status_code == 401
