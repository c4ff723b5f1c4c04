"""Devices over HTTP: who may do what, and what is said to those who send nonsense."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from starlette.testclient import TestClient

from compressor.service.access.keys import Keys
from compressor.service.api.app import create_app
from compressor.service.services import Services
from tests.service.clocks import FakeClock
from tests.service.devices.helpers import job, measured, measuring, pair, target

Post = Callable[..., Any]


@pytest.fixture
def client(sqlite_services: Services) -> Iterator[TestClient]:
    app = create_app(sqlite_services)
    with TestClient(app, base_url="http://127.0.0.1:8080", client=("127.0.0.1", 50000)) as found:
        yield found


def poll(name: str = "one", agent: str = "a", **more: Any) -> dict[str, Any]:
    return {"target": target(name).key, "agent": agent, "wait_seconds": 0, **more}


def test_a_measurement_from_the_job_to_the_agent_and_back(client: TestClient, sqlite_services: Services) -> None:
    assert client.post("/v1/devices/one/poll", json=poll()).status_code == 204
    (listed,) = client.get("/v1/devices").json()["devices"]
    assert (listed["name"], listed["here"], listed["points"]) == ("one", True, 0)
    assert client.get("/v1/devices/one").json() == listed
    name, token = job(sqlite_services)
    opened = client.post(f"/v1/work/{name}/device", json={"token": token, "name": "one"})
    assert opened.status_code == 201
    path = f"/v1/work/{name}/device/{opened.json()['session']}"
    asked = {"token": token, "key": "k", "request": measuring().to_json(), "wait_seconds": 0}
    assert client.post(path, json=asked).json() == {"state": "waiting", "waiting_for": None}
    leased = client.post("/v1/devices/one/poll", json=poll()).json()
    held = {"command": leased["id"], "lease": leased["lease"]}
    assert client.post("/v1/devices/one/poll/renew", json=held).json() == {"cancel": False}
    assert client.post("/v1/devices/one/results", json={**held, "answer": measured(2.5)}).status_code == 204
    assert client.post("/v1/devices/one/results", json={**held, "answer": measured(9.5)}).status_code == 409
    assert client.post(path, json=asked).json()["answer"]["result"]["median_ms"] == 2.5
    (table,) = client.post(f"{path}/table", json={"token": token}).json()["targets"]
    assert table["signatures"][0]["points"][0][:3] == [8, 8, 2.5]
    assert client.get("/v1/devices/one/table").json() == {"name": "one", "targets": [table]}
    assert client.post(f"{path}/close", json={"token": token}).status_code == 204
    assert client.post(path, json=asked).status_code == 404
    assert client.delete("/v1/devices/one/table").json() == {"targets": 1}
    assert client.delete("/v1/devices/one").status_code == 204
    assert client.get("/v1/devices/one").status_code == 404


def test_an_agent_fetches_only_what_it_has_to_measure(client: TestClient, sqlite_services: Services) -> None:
    client.post("/v1/devices/one/poll", json=poll())
    content = b"a network"
    sha256 = hashlib.sha256(content).hexdigest()
    sqlite_services.blobs.put(io.BytesIO(content), sha256)
    secret, _ = sqlite_services.blobs.put(io.BytesIO(b"of another job"))
    name, token = job(sqlite_services)
    session = client.post(f"/v1/work/{name}/device", json={"token": token, "name": "one"}).json()["session"]
    request = {**pair().to_json(), "files": [sha256]}
    asked = {"token": token, "key": "k", "request": request, "wait_seconds": 0}
    client.post(f"/v1/work/{name}/device/{session}", json=asked)
    place = "/v1/devices/one/poll/files"
    assert client.get(f"{place}/{sha256}").status_code == 404, "not yet the agent's"
    client.post("/v1/devices/one/poll", json=poll())
    assert client.get(f"{place}/{sha256}").content == content
    assert client.get(f"{place}/{secret}").status_code == 404
    assert client.get(f"{place}/x").status_code == 422, "no hash"


def test_names_are_refused_with_a_reason(client: TestClient) -> None:
    client.post("/v1/devices/one/poll", json=poll())
    other = client.post("/v1/devices/one/poll", json=poll("two", "b"))
    assert other.status_code == 409
    assert "belongs to another machine" in other.json()["detail"]
    assert "retry-after" not in other.headers, "it will not pass"
    busy = client.post("/v1/devices/one/poll", json=poll(agent="b"))
    assert (busy.status_code, busy.headers["retry-after"]) == (409, "5")
    assert client.post("/v1/devices/onnxruntime-cpu/poll", json=poll()).status_code == 422
    assert client.post("/v1/devices/one/poll", json=poll(leaving=True)).status_code == 204
    assert client.post("/v1/devices/one/poll", json=poll(agent="b")).status_code == 204


@pytest.mark.parametrize(
    ("path", "document"),
    [
        ("/v1/devices/one/poll", {}),
        ("/v1/devices/one/poll", {"target": "x", "agent": "a"}),
        ("/v1/devices/one/poll", {"target": "x" * 5000, "agent": "a"}),
        ("/v1/devices/one/poll", {**poll(), "wait_seconds": 1e9}),
        ("/v1/devices/one/poll", {**poll(), "more": 1}),
        ("/v1/devices/one/results", {"command": "x"}),
        ("/v1/devices/one/results", {"command": "x", "lease": "y", "answer": []}),
        ("/v1/work/x/device", {"name": "one"}),
        ("/v1/work/x/device/y", {"token": "t", "key": "k", "request": {"operation": "shell"}}),
        ("/v1/work/x/device/y/calibrations", {"token": "t"}),
    ],
)
def test_nonsense_is_refused(path: str, document: dict[str, Any], client: TestClient) -> None:
    got = client.post(path, json=document)
    assert got.status_code == 422, got.text
    assert got.headers["content-type"] == "application/problem+json"


def test_scopes(client: TestClient, sqlite_services: Services, clock: FakeClock) -> None:
    client.post("/v1/devices/one/poll", json=poll())
    keys = Keys(sqlite_services.database, sqlite_services.clock)
    made = {
        scope: keys.create(scope, project=None, scopes=[scope], by="test")[1]
        for scope in ("read", "submit", "agent", "admin")
    }
    clock.advance(3600)  # servers look now and then whether there are keys
    headers = {scope: {"Authorization": f"Bearer {key}"} for scope, key in made.items()}
    asked = {
        ("POST", "/v1/devices/one/poll"): {"agent", "admin"},
        ("POST", "/v1/work/x/device"): {"agent", "admin"},
        ("GET", "/v1/devices"): {"read", "admin"},
        ("GET", "/v1/devices/one/table"): {"read", "admin"},
        ("DELETE", "/v1/devices/one/table"): {"admin"},
    }
    for (method, path), allowed in asked.items():
        document = poll() if path.endswith("poll") else {"token": "t", "name": "one"} if method == "POST" else None
        for scope in made:
            got = client.request(method, path, json=document, headers=headers[scope])
            assert (got.status_code == 403) == (scope not in allowed), (method, path, scope, got.text)
    assert client.post("/v1/devices/one/poll", json=poll()).status_code == 401
