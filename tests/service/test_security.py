"""What must be refused is refused, over the whole app."""

from __future__ import annotations

import io
import json
import tempfile
import zipfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

from compressor.service.access.login import COOKIE
from compressor.service.api.app import create_app
from compressor.service.records import FileRecord, NewJob
from compressor.service.services import Services
from tests.service.devices.helpers import target
from tests.service.fixtures import ServicesMaker
from tests.service.strangers import AWAY, PUBLIC, Caller, World, faults, is_public, send, visits

LOCAL: dict[str, Any] = {"base_url": "http://127.0.0.1:8080", "client": ("127.0.0.1", 50000)}
MARK = "secret-of-alpha"
UNPICKLED = str(Path(tempfile.gettempdir()) / "unpickled-by-the-service")
RECIPE = {"model": "resnet20_cifar", "weights": "none", "budgets": {"flops": "50%"}}
HTML = '<script>alert(1)</script><img src=x onerror="alert(2)">'


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


def done_job(services: Services, project: str, name: str, files: dict[str, bytes], recipe: Any = None) -> str:
    """A job that is done, with files."""
    job = services.jobs.submit(NewJob(project=project, recipe=recipe or RECIPE, name=name, submitted_by=f"key:{name}"))
    claim = services.leases.claim("worker-1", project=project)
    assert claim is not None
    assert claim.job.id == job.id
    records = []
    for path, content in files.items():
        sha256, size = services.blobs.put(io.BytesIO(content))
        records.append(FileRecord(path, sha256, size))
    assert services.files.snapshot(job.id, claim.token, records) == []
    services.leases.end(job.id, claim.token, "done", None)
    return job.id


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


def test_every_route_refuses_strangers(world: World) -> None:
    assert "\n".join(faults(world)) == ""


def test_a_route_that_forgets_its_protection_is_found(world: World, services: Services) -> None:
    assert len(list(visits(world.app))) > 40

    @world.app.get("/v1/jobs/{job_id}/forgotten")
    def forgotten(job_id: str) -> str:
        return services.jobs.get(job_id).name

    @world.app.get("/v1/forgotten")
    def everything() -> list[str]:
        return [job.name for job in services.jobs.list()]

    world.app.routes.insert(0, world.app.routes.pop())
    world.app.routes.insert(0, world.app.routes.pop())
    found = faults(world)
    assert f"GET /v1/forgotten: another project is told '{MARK}'" in found
    assert "GET /v1/jobs/{job_id}/forgotten: another project is answered 200" in found


def test_what_is_public_says_nothing_of_anybody(world: World) -> None:
    nobody = world.client()
    assert {(v.method, v.template) for v in visits(world.app) if is_public(v) and v.method != "HEAD"} <= PUBLIC
    for method, path in PUBLIC - {("GET", "/static/{name:path}")}:
        answer = nobody.request(method, path)
        assert answer.status_code in (200, 204, 303, 404, 415), path
        assert not [mark for mark in world.marks if mark in answer.text]


def test_the_same_answer_whether_it_is_anothers_or_does_not_exist(world: World) -> None:
    stranger = world.client(world.stranger)
    for path in ("/v1/jobs/{}", "/v1/jobs/{}/report", "/v1/jobs/{}/events", "/v1/jobs/{}/files", "/v1/uploads/{}"):
        known = world.owned["upload_id" if "uploads" in path else "job_id"]
        other = "f" * len(known)
        answers = [stranger.get(path.format(each), headers={"Accept": "application/json"}) for each in (known, other)]
        assert answers[0].status_code == answers[1].status_code == 404
        assert answers[0].text.replace(known, "X") == answers[1].text.replace(other, "X")


def test_another_projects_things_are_no_part_of_a_recipe(world: World) -> None:
    stranger = world.client(world.stranger)
    for more in ({"weights": f"upload:{world.owned['upload_id']}"}, {"start": f"job:{world.owned['job_id']}"}):
        answer = stranger.post("/v1/jobs", json={**RECIPE, **more})
        assert answer.status_code == 422
        assert answer.json()["exit_code"] == 2
    assert stranger.post("/v1/jobs?project=alpha", json=RECIPE).status_code == 404
    assert stranger.get("/v1/jobs?project=alpha").status_code == 404
    mine = stranger.post("/v1/jobs", json=RECIPE, headers={"Idempotency-Key": "k"}).json()["id"]
    everybody = world.client(world.scoped["admin"])
    theirs = everybody.post("/v1/jobs?project=alpha", json=RECIPE, headers={"Idempotency-Key": "k"}).json()["id"]
    assert mine != theirs
    assert [job["id"] for job in stranger.get("/v1/jobs").json()["jobs"]] == [mine]


def test_a_worker_of_one_project_takes_no_other_projects_jobs(world: World) -> None:
    agent = world.client(world.stranger)
    claim = {"worker": "w", "labels": [], "version": "0", "wait_seconds": 0}
    assert agent.post("/v1/work/claim", json=claim).status_code == 204
    mine = agent.post("/v1/jobs", json=RECIPE).json()["id"]
    assert agent.post("/v1/work/claim", json=claim).json()["job"]["id"] == mine


def test_contents_are_for_the_worker_that_has_a_job_with_them(world: World, services: Services) -> None:
    content = b"the contents of a job"
    job = services.jobs.submit(NewJob(project="beta", recipe=RECIPE))
    agent, other = world.client(world.scoped["agent"]), world.client(world.scoped["agent"])
    while True:
        claim = agent.post(
            "/v1/work/claim", json={"worker": "w", "labels": [], "version": "0", "wait_seconds": 0}
        ).json()
        if claim["job"]["id"] == job.id:
            break
    sha256, size = services.blobs.put(io.BytesIO(content))
    lease = {"X-Lease-Token": claim["token"]}
    place = f"/v1/work/blobs/{sha256}"
    assert agent.get(place, headers=lease).status_code == 404
    files = [{"path": "a.bin", "sha256": sha256, "bytes": size}]
    assert agent.post(f"/v1/work/{job.id}/snapshot", json={"token": claim["token"], "files": files}).status_code == 200
    assert agent.get(place, headers=lease).content == content
    for headers in ({}, {"X-Lease-Token": ""}, {"X-Lease-Token": "x" * 32}):
        assert other.get(place, headers=headers).status_code == 404
    assert agent.get(f"/v1/work/blobs/{world.owned['sha256']}", headers=lease).status_code == 404
    services.leases.end(job.id, claim["token"], "done", None)
    assert agent.get(place, headers=lease).status_code == 404


EVIL = (
    "..%2f..%2f..%2fetc%2fpasswd",
    "%2e%2e%2f%2e%2e%2fetc%2fpasswd",
    "%252e%252e%252fetc%252fpasswd",
    "..%5c..%5cwindows%5cwin.ini",
    "..%c0%af..%c0%afetc",
    "a%00.json",
    "a%0d%0aSet-Cookie:%20a=b",
    "%2fetc%2fpasswd",
    "....%2f%2fetc",
    "%ff%fe",
    "~root",
    "C:%5c",
    "x" * 3000,
    "%F0%9F%92%A9",
    "'%20OR%20'1'='1",
    "%7b%7b7*7%7d%7d",
)


@pytest.mark.slow
def test_no_path_climbs_out(app: FastAPI, local: Caller, world: World) -> None:
    """Every parameter of every path; an admin asks, so that nothing but the path is in the way."""
    admin = world.client(world.scoped["admin"])
    seen = 0
    for visit in visits(app):
        for name in visit.parameters:
            for evil in EVIL:
                answer = send(admin, world, visit, {**world.owned, name: evil})
                assert 400 <= answer.status_code < 500 or visit.template.startswith("/v1/devices"), (visit, evil)
                assert answer.status_code < 500
                assert "root:" not in answer.text
                assert "set-cookie" not in answer.headers
                seen += 1
    assert seen > 300


def test_files_that_a_worker_names_stay_in_their_place(world: World, services: Services) -> None:
    job = services.jobs.submit(NewJob(project="beta", recipe=RECIPE, priority=1000))
    claim = services.leases.claim("w")
    assert claim is not None
    token = claim.token
    job = claim.job
    sha256, size = services.blobs.put(io.BytesIO(b"x"))
    agent = world.client(world.scoped["agent"])
    for path in (
        "../x",
        "/etc/passwd",
        "a/../../x",
        "a\\..\\x",
        "a\x00b",
        "a\r\nSet-Cookie: x",
        "",
        ".",
        "a//b",
        "x" * 5000,
        "\ud800",
    ):
        body = json.dumps({"token": token, "files": [{"path": path, "sha256": sha256, "bytes": size}]})
        answer = agent.post(f"/v1/work/{job.id}/snapshot", content=body, headers={"Content-Type": "application/json"})
        assert answer.status_code == 422, path
    assert services.files.list(job.id) == []


def test_what_a_name_of_a_file_says_is_no_header_and_no_page(world: World, services: Services) -> None:
    name = 'a";b=<script>é.html'
    job = done_job(
        services, "beta", "b", {name: HTML.encode(), "report.html": HTML.encode(), ".stages/secret.json": b"{}"}
    )
    mine = world.client(world.stranger)
    answer = mine.get(f"/v1/jobs/{job}/files/{name}")
    assert answer.status_code == 200
    assert answer.headers["content-disposition"].isascii()
    assert '";' not in answer.headers["content-disposition"]
    assert answer.headers["content-disposition"].startswith("attachment")
    page = mine.get(f"/v1/jobs/{job}/report?format=html")
    for each in (answer, page):
        assert "sandbox" in each.headers["content-security-policy"]
        assert "allow-scripts" not in each.headers["content-security-policy"]
        assert "allow-same-origin" not in each.headers["content-security-policy"]
        assert each.headers["x-content-type-options"] == "nosniff"
    assert mine.get(f"/v1/jobs/{job}/files/.stages/secret.json").status_code == 404
    assert ".stages" not in mine.get(f"/v1/jobs/{job}/files").text


def test_html_in_names_stays_text(local: Caller, services: Services) -> None:
    job = done_job(
        services,
        "default",
        HTML,
        {"report.json": json.dumps({"model": HTML}).encode(), "a.txt": b"x"},
        {**RECIPE, "note": HTML},
    )
    services.uploads.begin("default", HTML.replace("/", "-"), "arrays", 10, submitted_by=HTML)
    answers = [
        local.get(path, headers={"Accept": "text/html"})
        for path in (
            "/",
            f"/jobs/{job}",
            f"/?q={HTML}",
            "/uploads",
            f"/jobs/new?from={job}",
            f"/jobs/{HTML}",
            "/compare",
            f"/compare?job={job}&job={HTML}",
            f"/login?next={HTML}&failed={HTML}",
        )
    ]
    answers += [
        local.get(path)
        for path in ("/v1/jobs", f"/v1/jobs/{job}", "/v1/uploads", f"/v1/jobs?state={HTML}", f"/v1/{HTML}")
    ]
    answers.append(local.post("/v1/jobs", json={**RECIPE, HTML: HTML}))
    for answer in answers:
        assert answer.status_code < 500, answer.url
        is_page = answer.headers["content-type"].startswith("text/html")
        assert not is_page or ("<script>alert" not in answer.text and "<img src=x" not in answer.text), answer.url
        assert is_page or "json" in answer.headers["content-type"], answer.url
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert (
            "unsafe-inline"
            not in answer.headers["content-security-policy"].partition("script-src")[2].partition(";")[0]
        )
    assert HTML in [each["name"] for each in local.get("/v1/jobs").json()["jobs"]]


def unsafe(app: FastAPI) -> list[Any]:
    return [visit for visit in visits(app) if visit.method in ("POST", "PUT", "PATCH", "DELETE")]


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "https://evil.example"},
        {"Origin": "null"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
    ],
)
def test_other_sites_change_nothing_through_a_browser(app: FastAPI, headers: dict[str, str]) -> None:
    local = Caller(app, headers, **LOCAL)
    for visit in unsafe(app):
        path = visit.path(dict.fromkeys(visit.parameters, "x"))
        assert local.request(visit.method, path, json={}).status_code == 403, visit


@pytest.mark.parametrize("host", ["evil.example:8080", "127.0.0.1.evil.example", "localhost@evil.example"])
def test_other_names_of_this_machine_are_not_answered(app: FastAPI, host: str) -> None:
    local = Caller(app, {"Host": host}, **LOCAL)
    for visit in visits(app):
        path = visit.path(dict.fromkeys(visit.parameters, "x"))
        assert local.request(visit.method, path).status_code in (400, 403), visit


@pytest.mark.parametrize("kind", ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x"])
def test_forms_of_other_sites_do_not_reach_the_api(app: FastAPI, kind: str) -> None:
    local = Caller(app, **LOCAL)
    for visit in unsafe(app):
        if visit.template.startswith("/v1/"):
            path = visit.path(dict.fromkeys(visit.parameters, "x"))
            assert (
                local.request(visit.method, path, content=b'{"a": 1}', headers={"Content-Type": kind}).status_code
                == 415
            ), visit


def test_without_its_token_a_session_changes_nothing(world: World) -> None:
    keys = world.app.state.access.keys
    _, key = keys.create("ann", project="alpha", scopes=["admin"], by="test")
    browser = world.client()
    browser.post("/login", data={"key": key})
    assert browser.cookies[COOKIE]
    assert browser.get(f"/v1/jobs/{world.owned['job_id']}").status_code == 200
    for visit in unsafe(world.app):
        if not is_public(visit):
            assert send(browser, world, visit).status_code == 403, visit
    assert browser.get(f"/v1/jobs/{world.owned['job_id']}").status_code == 200


def test_scripts_and_frames_of_other_sites_get_nothing(local: Caller) -> None:
    for path in ("/", "/v1/jobs", "/login"):
        answer = local.get(path, headers={"Origin": "https://evil.example"})
        assert "access-control-allow-origin" not in answer.headers
        assert answer.headers["cross-origin-resource-policy"] == "same-origin"
        assert "frame-ancestors '" in answer.headers["content-security-policy"]
    answer = local.options(
        "/v1/jobs", headers={"Origin": "https://evil.example", "Access-Control-Request-Method": "POST"}
    )
    assert "access-control-allow-origin" not in answer.headers


# Uploads


def upload(client: Caller, kind: str, content: bytes, name: str = "a", **more: Any) -> Any:
    """Send a file; the answer to ``finish``, or to what was refused before."""
    begun = client.post("/v1/uploads", json={"name": name, "kind": kind, "bytes": len(content), **more})
    if begun.status_code != 201:
        return begun
    place = f"/v1/uploads/{begun.json()['id']}"
    headers = {"Upload-Offset": "0", "Content-Type": "application/offset+octet-stream"}
    sent = client.patch(place, content=content, headers=headers)
    return sent if sent.status_code != 200 else client.post(f"{place}/finish")


def npz(**arrays: Any) -> bytes:
    stream = io.BytesIO()
    np.savez_compressed(stream, **arrays)
    return stream.getvalue()


def test_oversized_uploads_are_refused_before_they_are_read(local: Caller) -> None:
    new = {"name": "a", "kind": "arrays", "bytes": 10}
    assert local.post("/v1/uploads", json={**new, "bytes": (1 << 20) + 1}).status_code == 413
    for size in (-1, 0.5, "x", 2**70, None):
        assert local.post("/v1/uploads", json={**new, "bytes": size}).status_code in (413, 422)
    place = f"/v1/uploads/{local.post('/v1/uploads', json=new).json()['id']}"
    headers = {"Upload-Offset": "0", "Content-Type": "application/offset+octet-stream"}
    assert local.patch(place, content=b"x" * 11, headers=headers).status_code == 413
    assert local.patch(place, content=b"x", headers={**headers, "Content-Length": str(1 << 40)}).status_code == 413

    async def chunks() -> AsyncIterator[bytes]:
        yield b"x" * 6
        yield b"x" * 6

    assert local.patch(place, content=chunks(), headers=headers).status_code == 413
    for offset in ("-1", "5", "x", "1e3", "9" * 30):
        assert local.patch(place, content=b"x", headers={**headers, "Upload-Offset": offset}).status_code in (409, 422)


def test_truncated_uploads_and_those_of_another_hash_are_no_uploads(local: Caller) -> None:
    content = npz(x=np.zeros(3))
    begun = local.post("/v1/uploads", json={"name": "a", "kind": "arrays", "bytes": len(content)}).json()["id"]
    headers = {"Upload-Offset": "0", "Content-Type": "application/offset+octet-stream"}
    assert local.patch(f"/v1/uploads/{begun}", content=content[:-1], headers=headers).status_code == 200
    assert local.post(f"/v1/uploads/{begun}/finish").status_code in (409, 422)
    assert local.post("/v1/jobs", json={**RECIPE, "data": f"upload:{begun}"}).status_code == 422
    assert upload(local, "arrays", content, sha256="0" * 64).status_code == 422
    assert upload(local, "arrays", content[: len(content) // 2]).status_code == 422


class Evil:
    """What runs something when it is unpickled."""

    def __reduce__(self) -> Any:
        return (Path.touch, (Path(UNPICKLED),))


def pickled() -> bytes:
    stream = io.BytesIO()
    np.savez(stream, x=np.array([Evil()], dtype=object))
    return stream.getvalue()


def zipped(*members: tuple[str, bytes]) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as file:
        for name, content in members:
            file.writestr(name, content)
    return stream.getvalue()


def test_uploads_that_are_not_what_they_say_are_refused(local: Caller) -> None:
    import pickle

    zeros = b"\0" * (20 << 20)
    bomb = zipped(*((f"{n}.npy", zeros) for n in range(4)))
    assert 900 * len(bomb) < 4 * len(zeros)
    image = b"\x89PNG\r\n\x1a\n" + b"\0" * 50
    header = json.dumps({"x": {"dtype": "F32", "shape": [1 << 40], "data_offsets": [0, 1 << 42]}}).encode()
    cases = [
        ("weights", pickle.dumps(Evil())),
        ("weights", zipped(("archive/data.pkl", pickle.dumps(Evil())))),
        ("weights", len(header).to_bytes(8, "little") + header),
        ("weights", (1 << 60).to_bytes(8, "little") + b"{}"),
        ("weights", b"\x7fELF" + b"\0" * 100),
        ("arrays", pickled()),
        ("arrays", pickle.dumps(Evil())),
        ("arrays", bomb),
        ("arrays", zipped(("../../x.npy", b"x"))),
        ("images", zipped(("../../../etc/cron.d/x.png", image))),
        ("images", zipped(("/etc/x.png", image))),
        ("images", zipped(("cat\\..\\..\\x.png", image))),
        ("images", zipped(("cat/x.py", b"import os"))),
        ("images", zipped(*((f"cat/{n}.png", zeros) for n in range(4)))),
        ("images", b"PK\x03\x04" + b"\0" * 60),
        ("images", b""),
        ("something", b"x"),
    ]
    for kind, content in cases:
        answer = upload(local, kind, content)
        assert answer.status_code in (413, 422), (kind, content[:40])
        assert answer.headers["content-type"] == "application/problem+json"
    assert not Path(UNPICKLED).exists()
    assert all(each["state"] != "done" for each in local.get("/v1/uploads").json()["uploads"])


# Recipes


@pytest.mark.parametrize(
    "more",
    [
        {"out": "/etc/cron.d/x"},
        {"force": True},
        {"lut": "/etc/passwd"},
        {"track": ["wandb"]},
        {"trust_factories": True},
        {"trust_factories": ["os:system"]},
        {"device": "cuda:0; rm -rf /"},
        {"data": "npz:/etc/passwd"},
        {"data": "imagefolder:/"},
        {"data": "hf:../../x"},
        {"data": "upload:../../etc/passwd"},
        {"weights": "/etc/passwd"},
        {"weights": "../../x.safetensors"},
        {"weights": "upload:x"},
        {"start": "/var/lib"},
        {"start": "job:../x"},
        {"model": "/etc/passwd"},
        {"model": "../model"},
        {"model": "hf:../../x"},
        {"model": "hf:https://evil.example/x"},
        {"model": 7},
        {"model": None},
        {"target": "no-such-device"},
        {"target": "../x"},
        {"export": ["../x"]},
        {"budgets": {"flops": "-5%"}},
        {"budgets": {}},
        {"budgets": {"__class__": "1"}},
        {"config": "/etc/passwd"},
        {"no_such_key": 1},
        {"name\x00": 1},
        {"finetune_epochs": 10**400},
        {"seed": "1; drop table jobs"},
    ],
)
def test_hostile_recipes_are_no_jobs(local: Caller, more: dict[str, Any]) -> None:
    answer = local.post("/v1/jobs", json={**RECIPE, **more})
    assert answer.status_code == 422, answer.text
    assert answer.json()["exit_code"] == 2
    assert local.get("/v1/jobs").json()["jobs"] == []


def nested(depth: int) -> bytes:
    return b"[" * depth + b"]" * depth


@pytest.mark.parametrize(
    ("kind", "body"),
    [
        ("application/json", nested(100_000)),
        ("application/json", b'{"model": ' + nested(100_000) + b"}"),
        ("application/json", b'{"model": "resnet20_cifar", "model": "resnet18"}'),
        ("application/json", b'{"model": NaN}'),
        ("application/json", b'{"model": "\xff\xfe"}'),
        ("application/json", b"{"),
        ("application/json", b""),
        ("application/json", b"[]"),
        ("application/json", b'"' + b"x" * (8 << 20) + b'"'),
        (
            "application/yaml",
            b"a: &a [x,x,x,x,x,x,x,x,x]\nb: &b [*a,*a,*a,*a,*a,*a,*a]\nc: &c [*b,*b,*b,*b,*b]\nd: [*c,*c,*c,*c]",
        ),
        ("application/yaml", b"!!python/object/apply:os.system ['touch " + UNPICKLED.encode() + b"']"),
        ("application/yaml", b"model: !!python/name:os.system"),
        ("application/yaml", b"[" * 50_000),
        ("application/yaml", b"- " * 50_000),
        ("application/yaml", b"? " * 50_000),
        ("application/yaml", b"\x00"),
        ("application/yaml", b"x: " + b"x" * (8 << 20)),
        ("application/xml", b'<!DOCTYPE x [<!ENTITY x SYSTEM "file:///etc/passwd">]><x>&x;</x>'),
    ],
)
def test_hostile_documents_are_refused(local: Caller, kind: str, body: bytes) -> None:
    answer = local.post("/v1/jobs", content=body, headers={"Content-Type": kind})
    assert answer.status_code in (400, 413, 415, 422), answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    assert local.get("/v1/jobs").json()["jobs"] == []
    assert not Path(UNPICKLED).exists()


def test_code_is_for_workers_that_opted_in(local: Caller, services: Services) -> None:
    answer = local.post("/v1/jobs", json={**RECIPE, "model": "os:system"})
    assert answer.status_code == 201
    assert services.leases.claim("shipped code alone") is None
    claim = services.leases.claim("opted in", {"code"})
    assert claim is not None
    assert claim.job.id == answer.json()["id"]


def test_all_that_is_refused_is_a_problem_document(world: World) -> None:
    stranger = world.client(world.stranger)
    for answer in (
        world.client().get("/v1/jobs"),
        stranger.get("/v1/jobs/x"),
        stranger.get("/v1/nothing"),
        stranger.put("/v1/jobs", json={}),
        stranger.get("/v1/jobs?limit=x"),
        world.client(world.scoped["read"]).post("/v1/jobs", json=RECIPE),
    ):
        assert answer.headers["content-type"] == "application/problem+json"
        assert {"type", "title", "status", "detail"} <= answer.json().keys()
        assert answer.json()["status"] == answer.status_code


def test_the_audit_log_has_who_did_what(world: World) -> None:
    admin, stranger = world.client(world.scoped["admin"]), world.client(world.stranger)
    job = stranger.post("/v1/jobs", json=RECIPE).json()["id"]
    stranger.post(f"/v1/jobs/{job}/cancel")
    stranger.delete(f"/v1/jobs/{job}")
    for _ in range(2):
        poll = {"target": target().key, "agent": "a", "version": "0", "wait_seconds": 0}
        assert stranger.post("/v1/devices/board-1/poll", json=poll).status_code == 204
    world.client("cmpr_wrong").get("/v1/jobs")
    entries = admin.get("/v1/audit?limit=5").json()["entries"]
    assert [(e["who"], e["action"], e["subject"]) for e in entries[::-1]] == [
        ("key:stranger", "job.submit", job),
        ("key:stranger", "job.cancel", job),
        ("key:stranger", "job.delete", job),
        ("key:stranger", "device.register", "board-1"),
        (f"address:{AWAY['client'][0]}", "key.refused", None),
    ]
    assert MARK not in stranger.get("/v1/audit").text
