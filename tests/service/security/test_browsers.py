"""Pages of other sites reach nothing through somebody's browser."""

from __future__ import annotations

from typing import Any

import pytest
from fastapi import FastAPI

from compressor.service.access.login import COOKIE
from tests.service.security.scenes import LOCAL
from tests.service.strangers import Caller, World, is_public, send, visits


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
