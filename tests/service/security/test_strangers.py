"""Whoever has no right to a thing is told nothing of it, by any route."""

from __future__ import annotations

import io

from compressor.service.records import NewJob
from compressor.service.services import Services
from tests.service.devices.helpers import target
from tests.service.security.scenes import MARK, RECIPE
from tests.service.strangers import AWAY, PUBLIC, World, faults, is_public, visits


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
