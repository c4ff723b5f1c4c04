"""Answers that go on for long end with the key or the session that they were asked with."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest
from fastapi import FastAPI
from starlette.testclient import TestClient

from compressor.service.access import standing
from compressor.service.access.access import Access
from compressor.service.access.login import COOKIE
from compressor.service.access.sessions import LIFETIME
from compressor.service.access.standing import Shown
from compressor.service.api import events as routes
from compressor.service.api import work
from compressor.service.devices import api as devices
from compressor.service.devices import examples
from compressor.service.errors import UnauthorizedError
from compressor.service.records import NewEvent, NewJob
from compressor.service.services import Services

from ..clocks import FakeClock
from .conftest import HERE, RECIPE

End = Callable[[], Any]
Opened = Callable[[], tuple[dict[str, str], End]]
LATER = NewEvent(0, datetime(2026, 3, 2, tzinfo=UTC), "Message", {"text": "said later"})
TOLD_IN_SECONDS = 20.0


@pytest.fixture(autouse=True)
def _soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(standing, "BELIEVED_SECONDS", 0.0)
    for module in (routes, work, devices):
        for name in ("LOOK_SECONDS", "ALONE_SECONDS", "PING_SECONDS", "_LOOK_S", "_ALONE_S"):
            if hasattr(module, name):
                monkeypatch.setattr(module, name, 0.02)


@pytest.fixture(params=["key", "session", "logout", "nobody"])
def opened(request: pytest.FixtureRequest, app: FastAPI) -> Opened:
    """Lets somebody in, who may do everything; gives the headers they send, and what ends it."""
    access: Access = app.state.access

    def done() -> tuple[dict[str, str], End]:
        def make() -> Any:
            return access.keys.create("ann", project=None, scopes=["admin"], by="x")[1]

        if request.param == "nobody":  # without keys everybody on this machine is let in, until there is one
            return {}, make
        key = make()
        if request.param == "key":
            return {"Authorization": f"Bearer {key}"}, lambda: access.keys.revoke("ann", by="x")
        principal = access.check_key(key, "here")
        cookie = access.sessions.open(principal)
        found = access.sessions.check(cookie)
        assert found is not None
        headers = {"Cookie": f"{COOKIE}={cookie}", "X-CSRF-Token": found.csrf or ""}
        end = access.keys.revoke if request.param == "session" else None
        return headers, (lambda: end("ann", by="x")) if end else (lambda: access.sessions.close(cookie))

    return done


def wait_for(true: Callable[[], bool]) -> None:
    until = time.monotonic() + TOLD_IN_SECONDS
    while not true():
        assert time.monotonic() < until
        time.sleep(0.005)


@pytest.mark.parametrize("is_quiet", [True, False], ids=["quiet", "busy"])
def test_a_stream_ends(app: FastAPI, client: TestClient, parts: Services, opened: Opened, is_quiet: bool) -> None:
    job = parts.jobs.submit(NewJob("default", RECIPE)).id
    headers, end = opened()
    claim = parts.leases.claim("w")
    assert claim is not None
    said: list[str] = []
    watcher = threading.Thread(
        target=lambda: said.append(client.get(f"/v1/jobs/{job}/events", headers=headers).text), daemon=True
    )
    watcher.start()
    wait_for(lambda: app.state.watchers.count == 1)
    end()
    if not is_quiet:
        parts.events.append(job, claim.token, [LATER])
    watcher.join(TOLD_IN_SECONDS)
    assert len(said) == 1
    assert "said later" not in said[0]
    assert app.state.watchers.count == 0


@pytest.mark.parametrize("place", ["/v1/work/claim", "/v1/devices/d1/poll"])
def test_a_long_poll_gives_nothing(
    app: FastAPI, parts: Services, opened: Opened, place: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    headers, end = opened()
    asked = {"/v1/work/claim": {"worker": "w", "wait_seconds": 30}, "/v1/devices/d1/poll": examples.POLL}[place]
    looks: list[Shown] = []
    access: Access = app.state.access
    real = access.standing.require

    def ended_meanwhile(shown: Shown) -> None:
        looks.append(shown)
        if len(looks) == 2:
            end()
            parts.jobs.submit(NewJob("default", RECIPE))
        real(shown)

    monkeypatch.setattr(access.standing, "require", ended_meanwhile)
    with TestClient(app, base_url=HERE, client=("127.0.0.1", 50000)) as asks:
        answer = asks.post(place, json=asked, headers=headers)
    assert (answer.status_code, len(looks)) == (401, 2), answer.text
    assert parts.jobs.counts("default")["queued"] == 1


def test_sessions_run_out_and_one_look_serves_many(
    sqlite_services: Services, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    access = Access(sqlite_services.database, sqlite_services.settings, clock)
    _, key = access.keys.create("ann", by="x")
    cookie = access.sessions.open(access.check_key(key, "here"))
    asked: list[Shown] = []

    def holds(shown: Shown) -> bool:
        asked.append(shown)
        return access.holds(shown)

    found = standing.Standing(holds, clock)
    monkeypatch.setattr(standing, "BELIEVED_SECONDS", 1.0)
    for _ in range(5):
        found.require(Shown(cookie=cookie))
        found.require(Shown(key=key))
    assert len(asked) == 2
    clock.advance(LIFETIME.total_seconds())
    found.require(Shown(key=key))
    for nobody in (Shown(cookie=cookie), Shown(), Shown(key="cmpr_x"), Shown(cookie="")):
        with pytest.raises(UnauthorizedError):
            found.require(nobody)
    assert cookie not in repr(asked)
