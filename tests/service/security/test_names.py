"""Paths and names that somebody chose lead nowhere else, and become neither headers nor markup."""

from __future__ import annotations

import io
import json

import pytest
from fastapi import FastAPI

from compressor.service.records import NewJob
from compressor.service.services import Services
from tests.service.security.scenes import HTML, RECIPE, done_job
from tests.service.strangers import Caller, World, send, visits

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
