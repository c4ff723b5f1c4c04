"""Whoever refuses, a browser gets a page and a program a problem document, with the same status and the same words."""

from __future__ import annotations

from typing import Any

import pytest
from starlette.testclient import TestClient

from compressor.service.database.engine import Database
from compressor.service.errors import DatabaseAwayError
from compressor.service.services import Services
from tests.service.page.checked import wrong_with
from tests.service.page.looking import post

PROBLEM = "application/problem+json"
BROWSER = {"Accept": "text/html,application/xhtml+xml,*/*;q=0.8"}
REFUSED = [
    ("GET", "/nothing/here", 404, {}),
    ("GET", "/jobs/0000", 404, {}),
    ("GET", "/static/nothing.js", 404, {}),
    ("GET", "/jobs/0000/cancel", 405, {}),
    ("POST", "/jobs/0000/cancel", 403, {}),
    ("GET", "/jobs/0000?seen=" + "x" * 300, 404, {}),
    ("GET", "/jobs/0000/live?seen=" + "x" * 300, 422, {}),
    ("GET", "/", 403, {"Host": "elsewhere.example"}),
    ("GET", "/%2e%2e/secret", 400, {}),
    ("DELETE", "/jobs/<b>", 403, {}),
]


@pytest.mark.parametrize(("method", "place", "status", "headers"), REFUSED)
def test_an_error_is_a_page_in_a_browser(
    client: TestClient, method: str, place: str, status: int, headers: dict[str, str]
) -> None:
    shown = client.request(method, place, headers={**headers, **BROWSER})
    told = client.request(method, place, headers={**headers, "Accept": "*/*"})
    polled = client.request(method, place, headers={**headers, **BROWSER, "HX-Request": "true"})
    assert shown.status_code == told.status_code == polled.status_code == status
    assert told.headers["content-type"] == polled.headers["content-type"] == PROBLEM
    assert shown.headers["content-type"] == "text/html; charset=utf-8"
    assert wrong_with(shown.text) == []
    assert told.json()["title"] in shown.text
    assert "<b>" not in shown.text.partition("<main")[2]
    assert "script-src 'self'" in shown.headers["content-security-policy"]
    assert shown.headers["x-content-type-options"] == "nosniff"


def test_a_form_that_is_too_large_is_a_page(client: TestClient) -> None:
    answer = post(client, "/jobs/new", {"model": "x" * (3 << 20)}, headers=BROWSER)
    assert (answer.status_code, wrong_with(answer.text)) == (413, [])
    assert "compress submit" in answer.text


def test_what_nobody_foresaw_and_a_database_that_is_away_are_pages_too(
    client: TestClient, parts: Services, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: Any, **__: Any) -> Any:
        raise ValueError("secret: /data/x")

    def away(*_: Any, **__: Any) -> Any:
        raise DatabaseAwayError("The database does not answer.")

    monkeypatch.setattr(type(parts.jobs), "list", broken)
    answer = client.get("/", headers=BROWSER)
    assert (answer.status_code, wrong_with(answer.text)) == (500, [])
    assert "secret" not in answer.text
    monkeypatch.setattr(Database, "begin", away)
    answer = client.get("/devices", headers=BROWSER)
    assert (answer.status_code, wrong_with(answer.text)) == (503, [])
    assert int(answer.headers["retry-after"]) > 0


def test_the_api_is_for_programs_whatever_they_accept(client: TestClient) -> None:
    for place in ("/v1/nothing", "/v1/jobs/0000", "/v1"):
        assert client.get(place, headers=BROWSER).headers["content-type"] == PROBLEM


def test_an_error_has_no_body_where_only_its_head_is_asked_for(client: TestClient) -> None:
    answer = client.head("/nothing/here", headers=BROWSER)
    assert (answer.status_code, answer.content) == (404, b"")


def test_errors_that_nobody_foresaw_are_counted(
    client: TestClient, parts: Services, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: Any, **__: Any) -> Any:
        raise ValueError("broken")

    monkeypatch.setattr(type(parts.jobs), "list", broken)
    assert client.get("/v1/jobs").status_code == 500
    (line,) = [
        line
        for line in client.get("/metrics").text.splitlines()
        if "_count" in line and 'status="500"' in line and 'route="/v1/jobs"' in line
    ]
    assert line.endswith(" 1.0")
