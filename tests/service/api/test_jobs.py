"""Jobs over HTTP."""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import Any

import pytest
from fastapi import FastAPI
from starlette.testclient import TestClient

from compressor.service.errors import DatabaseAwayError
from compressor.service.records import FileRecord
from compressor.service.services import Services
from tests.service.api.conftest import RECIPE

Submit = Callable[..., dict[str, Any]]
PROBLEM = "application/problem+json"


def test_a_job_is_submitted_listed_and_looked_at(client: TestClient, submit: Submit) -> None:
    job = submit(name="first", priority=3)
    assert job["state"] == "queued"
    assert job["recipe"]["budgets"] == {"flops": "30%"}
    assert (job["name"], job["priority"], job["attempt"], job["progress"]) == ("first", 3, 0, None)
    assert client.get(f"/v1/jobs/{job['id']}").json() == job
    page = client.get("/v1/jobs").json()
    assert [each["id"] for each in page["jobs"]] == [job["id"]]
    assert page["next"] is None
    assert "recipe" not in page["jobs"][0]


def test_a_name_is_made_of_the_recipe_and_is_harmless(submit: Submit) -> None:
    assert submit()["name"] == "resnet20_cifar flops 30%"
    assert submit(name="a\x1b[31m\nb\u202e")["name"] == "a [31m b"


def test_yaml_is_taken_and_its_mistakes_have_lines(client: TestClient) -> None:
    headers = {"Content-Type": "application/yaml"}
    good = "model: resnet20_cifar\nweights: none\ndata: digits\nbudgets: {flops: 30%}\n"
    assert client.post("/v1/jobs", content=good, headers=headers).status_code == 201
    answer = client.post("/v1/jobs", content=good + "out: /tmp/x\n", headers=headers)
    assert answer.status_code == 422
    assert answer.headers["content-type"] == PROBLEM
    problem = answer.json()
    assert (problem["key"], problem["line"], problem["exit_code"]) == ("out", 5, 2)
    assert problem["type"] == "urn:compressor:problem:usage"


def test_problems_hold_no_markup(client: TestClient) -> None:
    answer = client.post("/v1/jobs", json={**RECIPE, "model": "<script>alert(1)</script>"})
    assert answer.status_code == 422
    assert "<" not in answer.text
    assert "<script>" in answer.json()["detail"]
    assert answer.headers["x-content-type-options"] == "nosniff"


def test_the_same_key_is_the_same_job(client: TestClient) -> None:
    headers = {"Idempotency-Key": "abc"}
    first = client.post("/v1/jobs", json=RECIPE, headers=headers)
    again = client.post("/v1/jobs", json=RECIPE, headers=headers)
    assert (first.status_code, again.status_code) == (201, 200)
    assert first.json()["id"] == again.json()["id"]
    assert first.headers["location"] == f"/v1/jobs/{first.json()['id']}"
    other = client.post("/v1/jobs", json={**RECIPE, "seed": 1}, headers=headers)
    assert other.status_code == 409
    assert len(client.get("/v1/jobs").json()["jobs"]) == 1


def test_a_full_queue_says_when_to_come_back(client: TestClient, submit: Submit) -> None:
    for _ in range(20):
        submit()
    answer = client.post("/v1/jobs", json=RECIPE)
    assert answer.status_code == 429
    assert int(answer.headers["retry-after"]) > 0


def test_lists_are_filtered_and_paged(client: TestClient, submit: Submit) -> None:
    ids = [submit(name=f"job {n}")["id"] for n in range(5)]
    client.post(f"/v1/jobs/{ids[0]}/cancel")
    assert [j["id"] for j in client.get("/v1/jobs?state=cancelled").json()["jobs"]] == [ids[0]]
    assert len(client.get("/v1/jobs?state=queued,cancelled").json()["jobs"]) == 5
    assert [j["id"] for j in client.get("/v1/jobs", params={"q": "job 3"}).json()["jobs"]] == [ids[3]]
    seen: list[str] = []
    before: str | None = None
    for _ in range(4):
        page = client.get("/v1/jobs", params={"limit": 2} | ({"before": before} if before else {})).json()
        seen += [each["id"] for each in page["jobs"]]
        before = page["next"]
        if before is None:
            break
    assert seen == ids[::-1]


@pytest.mark.parametrize(
    "query", ["state=x", "limit=0", "limit=100000", "limit=x", "before=" + "a" * 100, "q=" + "x" * 1000]
)
def test_lists_refuse_what_cannot_be(client: TestClient, query: str) -> None:
    answer = client.get(f"/v1/jobs?{query}")
    assert answer.status_code == 422
    assert answer.json()["exit_code"] == 2


def test_cancel_retry_priority_delete(client: TestClient, submit: Submit) -> None:
    job = submit()["id"]
    assert client.post(f"/v1/jobs/{job}/priority", json={"priority": 7}).json()["priority"] == 7
    assert client.post(f"/v1/jobs/{job}/priority", json={"priority": "high"}).json()["key"] == "priority"
    assert client.post(f"/v1/jobs/{job}/priority", json={"priority": 1, "more": 1}).status_code == 422
    assert client.delete(f"/v1/jobs/{job}").status_code == 409
    assert client.post(f"/v1/jobs/{job}/cancel").json()["state"] == "cancelled"
    assert client.post(f"/v1/jobs/{job}/retry").json()["state"] == "queued"
    assert client.post(f"/v1/jobs/{job}/retry").status_code == 409
    client.post(f"/v1/jobs/{job}/cancel")
    assert client.delete(f"/v1/jobs/{job}").status_code == 204
    assert client.get(f"/v1/jobs/{job}").status_code == 404


@pytest.mark.parametrize(
    "path", ["/v1/jobs/0000", "/v1/jobs/0000/events", "/v1/jobs/0000/files", "/v1/jobs/0000/report"]
)
def test_what_is_not_there_is_404(client: TestClient, path: str) -> None:
    answer = client.get(path)
    assert answer.status_code == 404
    assert answer.headers["content-type"] == PROBLEM


def test_a_sweep_and_a_pick_of_it(
    client: TestClient, parts: Services, submit: Submit, claim: Callable[..., dict[str, Any]]
) -> None:
    sweep = submit({"model": "resnet20_cifar", "weights": "none", "budgets": {"flops": ["30%", "60%"]}})
    assert sweep["kind"] == "sweep"
    asked = {"budgets": {"flops": "45%"}, "export": ["onnx"]}
    early = client.post(f"/v1/jobs/{sweep['id']}/pick", json=asked)
    assert early.status_code == 409
    token = claim()["token"]
    front = FileRecord("front.json", *parts.blobs.put(io.BytesIO(b"{}")))
    assert parts.files.snapshot(sweep["id"], token, [front]) == []
    client.post(f"/v1/work/{sweep['id']}/end", json={"token": token, "state": "done"})
    made = client.post(f"/v1/jobs/{sweep['id']}/pick", json=asked)
    assert made.status_code == 201
    pick = made.json()
    assert (pick["kind"], pick["parent"], pick["recipe"]["budgets"]) == ("pick", sweep["id"], {"flops": "45%"})
    for bad, key in (
        ({"budgets": {}}, "budgets"),
        ({"budgets": {"flops": "x"}}, "budgets"),
        ({"budgets": {"flops": "1%"}, "export": ["../x"]}, "export"),
        ({"budgets": {"flops": "1%"}, "export": ["onnx-int8"]}, "export"),
        ({"budgets": {"latency": "1ms"}, "target": "/dev/null"}, "target"),
        ({"budgets": {"flops": "1%"}, "out": "/tmp"}, "out"),
    ):
        answer = client.post(f"/v1/jobs/{sweep['id']}/pick", json=bad)
        assert (answer.status_code, answer.json().get("key")) == (422, key), answer.text
    assert [file["path"] for file in claim()["parent_files"]] == ["front.json"]


def test_a_pick_needs_something_to_pick_from(
    client: TestClient, submit: Submit, claim: Callable[..., dict[str, Any]]
) -> None:
    job, token = submit()["id"], claim()["token"]
    client.post(f"/v1/work/{job}/end", json={"token": token, "state": "done"})
    answer = client.post(f"/v1/jobs/{job}/pick", json={"budgets": {"flops": "45%"}})
    assert answer.status_code == 409
    assert "sweep" in answer.json()["detail"]


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("PUT", "/v1/jobs", {"GET", "HEAD", "POST"}),
        ("PATCH", "/v1/jobs/0000", {"GET", "HEAD", "DELETE"}),
        ("DELETE", "/v1/jobs/0000/files/a", {"GET", "HEAD"}),
        ("GET", "/v1/jobs/0000/cancel", {"POST"}),
    ],
)
def test_what_may_be_done_at_a_place_is_named(client: TestClient, method: str, path: str, allowed: set[str]) -> None:
    answer = client.request(method, path)
    assert answer.status_code == 405
    assert set(answer.headers["allow"].split(", ")) == allowed


@pytest.mark.parametrize("before", ["zzz", "0", "%00", "", "1a22e82b5e7ee1ecc73bf", "../../etc"])
def test_a_page_begins_where_the_last_one_ended(client: TestClient, before: str) -> None:
    """A mark that is none was taken, and gave the first page or nothing."""
    assert client.get(f"/v1/jobs?before={before}").json()["key"] == "before"


def test_a_start_must_be_a_job_that_is_done(client: TestClient, submit: Submit) -> None:
    job = submit()["id"]
    answer = client.post("/v1/jobs", json={**RECIPE, "start": f"job:{job}"})
    assert (answer.status_code, answer.json()["key"]) == (422, "start")
    answer = client.post("/v1/jobs", json={**RECIPE, "start": "job:0000"})
    assert (answer.status_code, answer.json()["key"]) == (422, "start")


def test_uploads_that_are_not_there_are_told(client: TestClient) -> None:
    for key in ("weights", "data"):
        answer = client.post("/v1/jobs", json={**RECIPE, key: "upload:0197b2c3d4e5f60718a9"})
        assert (answer.status_code, answer.json()["key"]) == (422, key)


def test_code_waits_for_a_worker_that_takes_it(client: TestClient, submit: Submit) -> None:
    job = submit({**RECIPE, "model": "os:system"})
    assert job["labels"] == ["code"]
    assert "--allow-code" in job["waiting_for"]
    assert client.post("/v1/work/claim", json={"worker": "w"}).status_code == 204
    taken = client.post("/v1/work/claim", json={"worker": "w", "labels": ["code"]})
    assert taken.json()["job"]["id"] == job["id"]
    assert client.get(f"/v1/jobs/{job['id']}").json()["waiting_for"] is None


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"\xff", b'{"a": NaN}', b"[" * 1000])
def test_broken_bodies_leave_nothing(client: TestClient, content: bytes) -> None:
    answer = client.post("/v1/jobs", content=content, headers={"Content-Type": "application/json"})
    assert (answer.status_code, answer.json()["exit_code"]) == (422, 2)
    assert client.get("/v1/jobs").json()["jobs"] == []


def test_a_body_that_is_too_large_is_refused_by_its_length(client: TestClient) -> None:
    answer = client.post("/v1/jobs", content=b" " * 70_000, headers={"Content-Type": "application/json"})
    assert answer.status_code == 413


def test_a_database_that_is_away_is_503_and_comes_back(
    client: TestClient, parts: Services, submit: Submit, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = submit()["id"]

    def away(*_: Any, **__: Any) -> Any:
        raise DatabaseAwayError("The database does not answer.")

    with monkeypatch.context() as patched:
        patched.setattr(type(parts.database), "begin", away)
        for answer in (client.get("/v1/jobs"), client.get(f"/v1/jobs/{job}"), client.post("/v1/jobs", json=RECIPE)):
            assert answer.status_code == 503
            assert answer.headers["content-type"] == PROBLEM
            assert int(answer.headers["retry-after"]) > 0
    assert client.get(f"/v1/jobs/{job}").status_code == 200


def test_what_nobody_foresaw_is_500_and_tells_nothing(
    app: FastAPI, parts: Services, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: Any, **__: Any) -> Any:
        raise ValueError("secret: /data/x")

    monkeypatch.setattr(type(parts.jobs), "list", broken)
    address = {"base_url": "http://127.0.0.1:8080", "client": ("127.0.0.1", 1)}
    with TestClient(app, raise_server_exceptions=False, **address) as asking:  # type: ignore[arg-type]
        answer = asking.get("/v1/jobs")
    assert answer.status_code == 500
    assert answer.headers["content-type"] == PROBLEM
    assert "secret" not in answer.text
