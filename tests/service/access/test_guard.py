"""The guard around a small app: everything is refused that is not allowed."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from fastapi import FastAPI, Request
from fastapi.responses import HTMLResponse
from fastapi.testclient import TestClient

from compressor.service.access.access import Access
from compressor.service.access.install import install
from compressor.service.access.principals import principal_of
from compressor.service.api.problems import install_handlers
from compressor.service.services import Services
from compressor.service.settings import ServiceSettings

LOCAL = {"base_url": "http://127.0.0.1:8080", "client": ("127.0.0.1", 50000)}
AWAY = {"base_url": "http://farm.example", "client": ("203.0.113.7", 50000)}


def small_app(services: Services, **more: Any) -> tuple[FastAPI, Access]:
    """An app whose routes protect themselves by nothing."""
    app = FastAPI()

    @app.get("/healthz")
    def health() -> str:
        return "ok"

    @app.get("/v1/who")
    def who(request: Request) -> str:
        return principal_of(request).who

    @app.post("/v1/things")
    async def make(request: Request) -> dict[str, str]:
        await request.body()
        return {"id": "1a"}

    @app.delete("/v1/things/{thing}")
    def drop(thing: str) -> str:
        return thing

    @app.post("/v1/work/claim")
    def claim() -> str:
        return "work"

    @app.get("/page")
    def page(request: Request) -> HTMLResponse:
        return HTMLResponse(principal_of(request).csrf or "")

    @app.post("/page")
    async def post(request: Request) -> str:
        return str((await request.form()).get("name"))

    install_handlers(app)
    return app, install(app, services, **more)


def with_settings(services: Services, **more: Any) -> Services:
    from dataclasses import replace

    return replace(services, settings=ServiceSettings(**{**services.settings.model_dump(), **more}))


@pytest.fixture
def services(sqlite_services: Services) -> Services:
    return sqlite_services


@pytest.fixture
def local(services: Services) -> TestClient:
    return TestClient(small_app(services)[0], **LOCAL)


def bearer(key: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"}


def test_without_keys_this_machine_is_the_admin_of_the_default_project(local: TestClient) -> None:
    assert local.get("/v1/who").json() == "local"
    assert local.post("/v1/things", json={}).status_code == 200
    assert local.get("/v1/audit").json()["entries"][0]["action"] == "thing.create"


@pytest.mark.parametrize("host", ["evil.example", "127.0.0.1.evil.example:8080", "10.0.0.1:8080", ""])
def test_without_keys_other_hosts_are_not_answered(local: TestClient, host: str) -> None:
    for path in ("/v1/who", "/healthz", "/page", "/nothing"):
        assert local.get(path, headers={"Host": host}).status_code in (400, 403)


def test_without_keys_other_machines_are_not_answered(services: Services) -> None:
    for client in ({**AWAY}, {**AWAY, "base_url": "http://127.0.0.1"}, {**LOCAL, "base_url": "http://farm.example"}):
        assert TestClient(small_app(services)[0], **client).get("/healthz").status_code == 403


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "https://evil.example"},
        {"Origin": "null"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
    ],
)
def test_other_sites_change_nothing(local: TestClient, headers: dict[str, str]) -> None:
    assert local.post("/v1/things", json={}, headers=headers).status_code == 403
    assert local.delete("/v1/things/1", headers=headers).status_code == 403
    assert local.get("/v1/audit").json()["entries"] == []


@pytest.mark.parametrize("kind", ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x"])
def test_forms_of_other_sites_do_not_reach_the_api(local: TestClient, kind: str) -> None:
    answer = local.post("/v1/things", content=b'{"a": 1}', headers={"Content-Type": kind})
    assert answer.status_code == 415
    assert answer.headers["content-type"] == "application/problem+json"
    assert local.post("/v1/things", content=b"{}").status_code == 415


def test_forms_of_the_page_need_their_token_also_without_keys(local: TestClient) -> None:
    assert local.post("/page", data={"name": "a"}).status_code == 403
    token = local.get("/page").text
    assert local.post("/page", data={"csrf_token": token, "name": "a"}).json() == "a"
    files = {"csrf_token": (None, token), "file": ("a.bin", b"z" * 100_000), "name": (None, "b")}
    assert local.post("/page", files=files).json() == "b"
    assert local.post("/page", headers={"X-CSRF-Token": token}, data={"name": "c"}).json() == "c"


def test_with_keys_everything_needs_one(services: Services) -> None:
    app, access = small_app(services)
    away = TestClient(app, **AWAY)
    _, key = access.keys.create("ann", by="x")
    assert away.get("/healthz").status_code == 200
    for path in ("/v1/who", "/page", "/nothing", "/openapi.json", "/docs", "/metrics"):
        answer = away.get(path)
        assert answer.status_code == 401, path
        assert answer.headers["WWW-Authenticate"] == "Bearer"
    for headers in (
        {"Authorization": "Bearer x"},
        {"Authorization": f"Basic {key}"},
        {"Authorization": key},
        {"X-Key": key},
    ):
        assert away.get("/v1/who", headers=headers).status_code == 401
    assert away.get("/v1/who", headers=bearer(key)).json() == "key:ann"
    assert TestClient(app, **LOCAL).get("/v1/who").status_code == 401  # this machine, too
    access.keys.revoke("ann", by="x")
    assert away.get("/v1/who", headers=bearer(key)).status_code == 401
    assert TestClient(app, **LOCAL).get("/v1/who").status_code == 401


def test_scopes_have_a_floor(services: Services) -> None:
    app, access = small_app(services)
    away = TestClient(app, **AWAY)
    wanted = {
        ("GET", "/v1/who"): "read",
        ("POST", "/v1/things"): "submit",
        ("DELETE", "/v1/things/1"): "submit",
        ("POST", "/v1/work/claim"): "agent",
        ("GET", "/v1/audit"): "admin",
    }
    for scope in ("read", "submit", "agent", "admin"):
        _, key = access.keys.create(scope, scopes=[scope], by="x")
        for (method, path), needed in wanted.items():
            answer = away.request(method, path, headers=bearer(key))
            assert (answer.status_code == 200) == (scope in (needed, "admin")), (scope, method, path)
            assert answer.status_code in (200, 403)


def test_many_wrong_keys_have_to_wait_and_are_written_down(services: Services) -> None:
    app, access = small_app(services)
    away, elsewhere = TestClient(app, **AWAY), TestClient(app, **{**AWAY, "client": ("203.0.113.8", 1)})
    _, good = access.keys.create("ann", by="x")
    assert away.get("/v1/who", headers=bearer(good)).status_code == 200
    statuses = [away.get("/v1/who", headers=bearer(f"cmpr_{n}")).status_code for n in range(30)]
    assert statuses[:20] == [401] * 20
    assert 429 in statuses[20:]
    assert away.get("/v1/who", headers=bearer(good)).status_code == 200
    assert elsewhere.get("/v1/who", headers=bearer("cmpr_x")).status_code == 401
    refused = [e for e in access.audit.entries() if e.action == "key.refused"]
    assert 20 <= len(refused) <= 30
    assert {e.who for e in refused} == {"address:203.0.113.7", "address:203.0.113.8"}


def test_workers_of_this_run_have_a_key_that_is_stored_nowhere(services: Services) -> None:
    app, access = small_app(services)
    key = access.run_secret("worker-1")
    local = TestClient(app, **LOCAL)
    assert local.get("/v1/who", headers=bearer(key)).status_code == 403  # an agent reads nothing
    assert local.post("/v1/work/claim", headers=bearer(key)).status_code == 200
    assert access.keys.records() == []
    access.keys.create("ann", by="x")
    assert local.post("/v1/work/claim", headers=bearer(key)).status_code == 200
    other, _ = small_app(services)
    assert TestClient(other, **LOCAL).post("/v1/work/claim", headers=bearer(key)).status_code == 401


def test_climbing_paths_are_refused_before_any_route(local: TestClient) -> None:
    for path in ("/v1/things/%2e%2e%2f%2e%2e", "/v1/things/%252e%252e", "/v1/things/a%00", "/v1/things/..%5c"):
        assert local.delete(path).status_code == 400, path


def test_answers_tell_browsers_to_be_careful(local: TestClient) -> None:
    for path in ("/v1/who", "/page", "/nothing"):
        headers = local.get(path).headers
        assert headers["X-Content-Type-Options"] == "nosniff"
        assert "script" not in headers["Content-Security-Policy"].replace("default-src 'none'", "")
        assert "frame-ancestors 'self'" in headers["Content-Security-Policy"]
    assert "sandbox" in local.get("/v1/who").headers["Content-Security-Policy"]


def test_there_are_no_websockets(local: TestClient) -> None:
    from starlette.websockets import WebSocketDisconnect

    with pytest.raises(WebSocketDisconnect), local.websocket_connect("/v1/who"):
        pass


def test_large_documents_are_refused_before_they_are_read(local: TestClient) -> None:
    headers = {"Content-Type": "application/json", "Content-Length": str(1 << 30)}
    assert local.post("/v1/things", content=b"{}", headers=headers).status_code == 413

    def chunks() -> Any:
        for _ in range(20):
            yield b" " * (1 << 20)

    answer = local.post("/v1/things", content=chunks(), headers={"Content-Type": "application/json"})
    assert answer.status_code == 413
    for length in ("-1", "1e3", "x"):
        bad = {"Content-Type": "application/json", "Content-Length": length}
        assert local.post("/v1/things", content=b"{}", headers=bad).status_code == 400


def test_bodies_that_do_not_come_are_not_waited_for(services: Services) -> None:
    app, _ = small_app(services, patience=0.05)
    sent: list[dict[str, Any]] = []
    messages = [{"type": "http.request", "body": b"{", "more_body": True}]

    async def receive() -> dict[str, Any]:
        if messages:
            return messages.pop()
        await asyncio.Event().wait()
        raise AssertionError

    async def send(message: Any) -> None:
        sent.append(message)

    scope = {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": "POST",
        "scheme": "http",
        "path": "/v1/things",
        "raw_path": b"/v1/things",
        "query_string": b"",
        "root_path": "",
        "headers": [
            (b"host", b"127.0.0.1"),
            (b"content-type", b"application/json"),
            (b"transfer-encoding", b"chunked"),
        ],
        "client": ("127.0.0.1", 1),
        "server": ("127.0.0.1", 8080),
    }
    asyncio.run(asyncio.wait_for(app(scope, receive, send), 30))  # type: ignore[arg-type]
    assert sent[0]["status"] == 408
    assert (b"connection", b"close") in sent[0]["headers"]


def test_single_sign_on_is_taken_from_the_proxy_alone(services: Services) -> None:
    settings = {"trusted_proxies": ["10.0.0.0/8"], "proxy_header": "X-Remote-User", "proxy_project": "vision"}
    app, access = small_app(with_settings(services, **settings))
    proxy = TestClient(app, base_url="http://farm.example", client=("10.0.0.2", 1))
    user = {"X-Remote-User": "ann", "X-Forwarded-For": "203.0.113.7", "X-Forwarded-Proto": "https"}
    assert proxy.get("/v1/who", headers=user).json() == "user:ann"
    assert proxy.get("/v1/who").status_code == 401
    for client in (AWAY, LOCAL):
        assert TestClient(app, **client).get("/v1/who", headers=user).status_code == 403
        assert TestClient(app, **client).get("/healthz", headers=user).status_code == 403
    # The browser is logged in at the proxy by itself, so whatever changes something needs the token.
    assert proxy.post("/v1/things", json={}, headers=user).status_code == 403
    token = proxy.get("/page", headers=user).text
    assert proxy.post("/v1/things", json={}, headers={**user, "X-CSRF-Token": token}).status_code == 200
    other = {**user, "X-Remote-User": "bob", "X-CSRF-Token": token}
    assert proxy.post("/v1/things", json={}, headers=other).status_code == 403
    assert proxy.get("/v1/audit", headers=user).status_code == 403
    entry = access.audit.entries()[0]
    assert (entry.who, entry.action, entry.subject, entry.project) == ("user:ann", "thing.create", "1a", "vision")


def test_a_database_that_is_away_lets_nobody_in(services: Services, monkeypatch: pytest.MonkeyPatch) -> None:
    from compressor.service.errors import DatabaseAwayError

    app, _ = small_app(services)

    def away(*_: Any, **__: Any) -> Any:
        raise DatabaseAwayError("The database does not answer.")

    monkeypatch.setattr(services.database.__class__, "begin", away)
    local = TestClient(app, **LOCAL)
    assert local.get("/healthz").status_code == 200
    assert local.get("/v1/who").status_code == 503
    assert local.get("/v1/who", headers=bearer("cmpr_x")).status_code == 503
    assert TestClient(app, **AWAY).get("/v1/who").status_code == 503
