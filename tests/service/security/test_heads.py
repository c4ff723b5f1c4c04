"""HEAD is answered wherever GET is, as GET is, and by the same rules."""

from __future__ import annotations

import httpx
import pytest

from compressor.service.records import NewJob
from compressor.service.services import Services
from tests.service.client.conftest import serving
from tests.service.fixtures import ServicesMaker
from tests.service.security.scenes import RECIPE, done_job
from tests.service.strangers import Visit, World, send, visits

ASKED_OTHERWISE = Visit("GET", "/v1/work/blobs/{sha256}")
"""HEAD asks whether the server has a content, GET for what a lease may read."""
OF_THE_MOMENT = {"date", "set-cookie", "retry-after"}


def headers_of(answer: httpx.Response) -> dict[str, str]:
    return {name: value for name, value in answer.headers.items() if name not in OF_THE_MOMENT}


def test_every_place_that_can_be_read_answers_head_as_it_answers_get(world: World) -> None:
    admin = world.client(world.scoped["admin"])
    seen = 0
    for visit in {each for each in visits(world.app) if each.method == "GET"} - {ASKED_OTHERWISE}:
        heads = send(admin, world, Visit("HEAD", visit.template))
        gets = send(admin, world, visit)
        assert (str(visit), heads.status_code) == (str(visit), gets.status_code)
        assert heads.content == b""
        if visit.template in ("/metrics", "/jobs/{job_id}", "/jobs/{job_id}/live", "/", "/jobs/table"):
            continue  # their text changes as time goes by
        assert headers_of(heads) == headers_of(gets), visit
        seen += 1
    assert seen > 25


@pytest.mark.parametrize(("method", "place"), [("GET", "/v1/jobs/0000/cancel"), ("HEAD", "/v1/jobs/0000/cancel")])
def test_where_nothing_can_be_read_head_is_refused_as_get_is(world: World, method: str, place: str) -> None:
    answer = world.client(world.scoped["admin"]).request(method, place)
    assert (answer.status_code, answer.headers["allow"]) == (405, "POST")


def test_what_may_be_read_is_said_to_take_head(world: World) -> None:
    answer = world.client(world.scoped["admin"]).put("/v1/jobs", json={})
    assert (answer.status_code, answer.headers["allow"]) == (405, "GET, HEAD, POST")


def test_streams_and_files_on_the_wire(make_services: ServicesMaker, sqlite_url: str) -> None:
    parts = make_services(sqlite_url, real_clock=True, workers=0)
    done = done_job(parts, "default", "a", {"report.json": b"{}", "model.bin": bytes(5000)})
    queued = parts.jobs.submit(NewJob(project="default", recipe=RECIPE)).id
    with serving(parts) as server, httpx.Client(base_url=server.url, timeout=20) as client:
        for _ in range(2):  # on one connection: nothing of a body is on it
            for job in (done, queued):
                stream = client.head(f"/v1/jobs/{job}/events")
                assert stream.headers["content-type"].startswith("text/event-stream")
        part = client.head(f"/v1/jobs/{done}/files/model.bin", headers={"Range": "bytes=4000-"})
        assert (part.status_code, part.headers["content-length"]) == (206, "1000")
        assert client.head(f"/v1/jobs/{done}/report").headers["content-length"] == "2"
        assert client.get("/healthz").json()["status"] == "ok"


def test_a_stream_that_nobody_reads_is_left(world: World, services: Services) -> None:
    client = world.client(world.scoped["admin"])
    answer = client.request("HEAD", f"/v1/jobs/{world.owned['job_id']}/events", headers={"Accept": "text/event-stream"})
    assert answer.status_code == 200
    assert world.app.state.watchers.count == 0
