"""Logging in on the page."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from fastapi.testclient import TestClient

from compressor.service.access.access import Access
from compressor.service.access.login import COOKIE, place_after
from compressor.service.services import Services
from tests.service.access.test_guard import AWAY, bearer, small_app, with_settings

HTML = {"Accept": "text/html"}


@pytest.fixture
def services(sqlite_services: Services) -> Services:
    return sqlite_services


@pytest.fixture
def opened(services: Services) -> Iterator[tuple[TestClient, Access, str]]:
    """A browser elsewhere, the server's access, and a key."""
    app, access = small_app(services)
    _, key = access.keys.create("ann", project="vision", by="x")
    with TestClient(app, follow_redirects=False, **AWAY) as browser:
        yield browser, access, key


def test_a_browser_is_sent_to_the_login_page_and_back(opened: tuple[TestClient, Access, str]) -> None:
    browser, access, key = opened
    sent = browser.get("/page?a=1&b=2", headers=HTML)
    assert (sent.status_code, sent.headers["location"]) == (303, "/login?next=%2Fpage%3Fa%3D1%26b%3D2")
    inside = browser.get("/page", headers={**HTML, "HX-Request": "true"})
    assert (inside.status_code, inside.headers["HX-Redirect"]) == (401, "/login")
    answer = browser.post("/login", data={"key": f" {key} ", "next": "/page?a=1"})
    assert (answer.status_code, answer.headers["location"]) == (303, "/page?a=1")
    cookie = answer.headers["set-cookie"]
    assert "HttpOnly" in cookie
    assert "samesite=lax" in cookie.lower()
    assert "Path=/" in cookie
    assert "Secure" not in cookie  # plain http
    assert key not in cookie
    assert browser.get("/page", headers=HTML).status_code == 200
    entry = access.audit.entries()[0]
    assert (entry.who, entry.action, entry.project) == ("key:ann", "session.open", "vision")
    assert entry.details == {"address": "203.0.113.7"}


def test_where_https_is_spoken_the_cookie_is_for_https_alone(services: Services) -> None:
    app, access = small_app(with_settings(services, trusted_proxies=["10.0.0.2"]))
    _, key = access.keys.create("ann", by="x")
    direct = TestClient(app, follow_redirects=False, base_url="https://farm.example", client=("203.0.113.7", 1))
    assert "Secure" in direct.post("/login", data={"key": key}).headers["set-cookie"]
    proxied = TestClient(app, follow_redirects=False, base_url="http://farm.example", client=("10.0.0.2", 1))
    headers = {"X-Forwarded-Proto": "https", "X-Forwarded-For": "203.0.113.7"}
    assert "Secure" in proxied.post("/login", data={"key": key}, headers=headers).headers["set-cookie"]


def test_wrong_keys_open_nothing(opened: tuple[TestClient, Access, str]) -> None:
    browser, access, key = opened
    for wrong in ("", "x", key[:-1], key.upper()):
        answer = browser.post("/login", data={"key": wrong, "next": "/page"})
        assert (answer.status_code, answer.headers["location"]) == (303, "/login?failed=1&next=%2Fpage")
        assert "set-cookie" not in answer.headers
    assert [e.action for e in access.audit.entries()][:4] == ["key.refused"] * 4
    for _ in range(40):
        answer = browser.post("/login", data={"key": "x"})
    assert answer.headers["location"].startswith("/login?failed=wait")
    # Whoever waits does so with the right key, too: else waiting would tell which is right.
    assert browser.post("/login", data={"key": key}).headers["location"].startswith("/login?failed=wait")


@pytest.mark.parametrize(
    "place",
    [
        "//evil.example",
        "https://evil.example",
        "/\\evil.example",
        "\\\\evil.example",
        "javascript:alert(1)",
        "/a\r\nSet-Cookie: x",
        "",
        None,
        "/ x",
    ],
)
def test_no_link_leads_elsewhere_through_the_login(place: str | None) -> None:
    assert place_after(place) == "/"


def test_other_sites_log_nobody_in_or_out(opened: tuple[TestClient, Access, str]) -> None:
    browser, _, key = opened
    for headers in ({"Origin": "https://evil.example"}, {"Sec-Fetch-Site": "cross-site"}):
        assert browser.post("/login", data={"key": key}, headers=headers).status_code == 403
    assert browser.post("/login", json={"key": key}).status_code == 415
    assert (
        browser.post(
            "/login", content=b"key=" + b"x" * (2 << 20), headers={"Content-Type": "application/x-www-form-urlencoded"}
        ).status_code
        == 413
    )
    browser.post("/login", data={"key": key})
    assert browser.post("/logout").status_code == 403
    assert browser.get("/page").status_code == 200


def test_a_session_changes_something_with_its_own_token_alone(opened: tuple[TestClient, Access, str]) -> None:
    browser, access, key = opened
    browser.post("/login", data={"key": key})
    token = browser.get("/page").text
    other = access.sessions.check(access.sessions.open(access.check_key(key, "a")))
    assert other is not None
    for wrong in ({}, {"X-CSRF-Token": ""}, {"X-CSRF-Token": "x"}, {"X-CSRF-Token": str(other.csrf)}):
        assert browser.post("/v1/things", json={}, headers=wrong).status_code == 403
        assert browser.delete("/v1/things/1", headers=wrong).status_code == 403
        assert browser.post("/page", data={"name": "a"}, headers=wrong).status_code == 403
    assert browser.post("/v1/things", json={}, headers={"X-CSRF-Token": token}).status_code == 200
    assert browser.post("/page", data={"csrf_token": token, "name": "a"}).json() == "a"
    # A key that a program sends is no cookie that a browser adds by itself.
    assert browser.post("/v1/things", json={}, headers=bearer(key)).status_code == 200


def test_logging_out_ends_it_also_for_who_has_copied_the_cookie(opened: tuple[TestClient, Access, str]) -> None:
    browser, access, key = opened
    browser.post("/login", data={"key": key})
    copied = browser.cookies[COOKIE]
    token = browser.get("/page").text
    answer = browser.post("/logout", data={"csrf_token": token})
    assert (answer.status_code, answer.headers["location"]) == (303, "/login")
    assert access.audit.entries()[0].action == "session.close"
    browser.cookies.set(COOKIE, copied)
    assert browser.get("/page").status_code == 401


def test_revoking_the_key_ends_the_session(opened: tuple[TestClient, Access, str]) -> None:
    browser, access, key = opened
    browser.post("/login", data={"key": key})
    assert browser.get("/page").status_code == 200
    access.keys.revoke("ann", by="x")
    assert browser.get("/page").status_code == 401


@pytest.mark.parametrize("cookie", ["", "x", "a" * 10_000, "ü", '"'])
def test_cookies_of_nobody(opened: tuple[TestClient, Access, str], cookie: str) -> None:
    browser, _, _ = opened
    headers = [(b"cookie", f"{COOKIE}={cookie}".encode("latin-1"))]
    assert browser.get("/page", headers=headers).status_code == 401
