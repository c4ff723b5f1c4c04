"""Events over HTTP: each once, in order, whatever breaks off."""

from __future__ import annotations

import asyncio
import json
import threading
import tracemalloc
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest
from fastapi import FastAPI
from starlette.testclient import TestClient

from compressor.service.api import events as routes
from compressor.service.api.frames import Frames
from compressor.service.api.watchers import Closing, Watchers
from compressor.service.errors import DatabaseAwayError, TooManyError
from compressor.service.records import EventRecord, NewEvent
from compressor.service.services import Services

Submit = Callable[..., dict[str, Any]]
NOW = datetime(2026, 3, 2, tzinfo=UTC)


def steps(first: int, count: int) -> list[NewEvent]:
    return [NewEvent(n, NOW, "Step", {"stage": "search", "done": n, "total": 99}) for n in range(first, first + count)]


def parsed(text: str) -> list[dict[str, Any]]:
    """Events of a stream, as a browser reads them."""
    found = []
    for block in text.split("\n\n"):
        fields = dict(line.split(": ", 1) for line in block.splitlines() if not line.startswith(":"))
        if "data" in fields:
            found.append({"id": int(fields["id"]), "event": fields["event"], **json.loads(fields["data"])})
    return found


@pytest.fixture
def ended(submit: Submit, claim: Callable[..., dict[str, Any]], parts: Services) -> str:
    """A job with seven steps that is done."""
    job = str(submit()["id"])
    token = claim()["token"]
    parts.events.append(job, token, steps(0, 7))
    parts.leases.end(job, token, "done")
    return job


def test_a_stream_has_every_event_and_ends(client: TestClient, ended: str) -> None:
    answer = client.get(f"/v1/jobs/{ended}/events")
    assert answer.headers["content-type"].startswith("text/event-stream")
    found = parsed(answer.text)
    assert [each["done"] for each in found if each["event"] == "Step"] == list(range(7))
    assert found[-1]["event"] == "end"
    assert found[-1]["state"] == "done"
    assert [each["id"] for each in found] == sorted({each["id"] for each in found})


def test_it_goes_on_after_any_event(client: TestClient, ended: str) -> None:
    whole = parsed(client.get(f"/v1/jobs/{ended}/events").text)
    for index, event in enumerate(whole):
        rest = client.get(f"/v1/jobs/{ended}/events", headers={"Last-Event-ID": str(event["id"])})
        assert parsed(rest.text) == whole[index + 1 :]


@pytest.mark.parametrize("header", ["x", "-1", "1.5", "9" * 30, "٣"])
def test_an_id_that_is_none_is_refused(client: TestClient, ended: str, header: str) -> None:
    answer = client.get(f"/v1/jobs/{ended}/events", headers={"Last-Event-ID": header.encode()})
    assert answer.status_code == 422


def test_pages_of_json(client: TestClient, ended: str) -> None:
    whole = parsed(client.get(f"/v1/jobs/{ended}/events").text)
    found: list[dict[str, Any]] = []
    last = 0
    while True:
        headers = {"Accept": "application/json"}
        page = client.get(f"/v1/jobs/{ended}/events", params={"after": last, "limit": 3}, headers=headers).json()
        assert page["ended"] is True
        if not page["events"]:
            break
        found += page["events"]
        last = page["last"]
    assert found == whole


def test_a_retried_job_goes_on_after_its_first_end(
    client: TestClient, submit: Submit, claim: Callable[..., dict[str, Any]], parts: Services
) -> None:
    job = submit()["id"]
    parts.leases.end(job, claim()["token"], "failed", {"kind": "X", "text": "x", "exit_code": 1})
    client.post(f"/v1/jobs/{job}/retry")
    token = claim()["token"]
    parts.events.append(job, token, steps(0, 2))
    parts.leases.end(job, token, "done")
    kinds = [(each["event"], each["attempt"]) for each in parsed(client.get(f"/v1/jobs/{job}/events").text)]
    assert [each for each in kinds if each[0] == "end"] == [("end", 1), ("end", 2)]
    assert kinds[-1] == ("end", 2)
    assert kinds.count(("Step", 2)) == 2


def test_texts_cannot_break_the_stream(
    client: TestClient, submit: Submit, claim: Callable[..., dict[str, Any]], parts: Services
) -> None:
    job, token = submit()["id"], None
    token = claim()["token"]
    nasty = "a\n\nevent: end\ndata: {}\r\n\u2028<script>"
    parts.events.append(job, token, [NewEvent(0, NOW, "Message", {"text": nasty})])
    parts.leases.end(job, token, "done")
    found = parsed(client.get(f"/v1/jobs/{job}/events").text)
    assert [each["text"] for each in found if each["event"] == "Message"] == [nasty]
    assert [each["event"] for each in found].count("end") == 1


async def _collected(
    parts: Services, job: str, last: int = 0, closing: Closing | None = None, frames: Frames | None = None
) -> list[dict[str, Any]]:
    text = b""
    async for frame in routes._stream(
        parts, frames or Frames(parts), Watchers(), closing or Closing(parts.bell), job, last
    ):
        text += frame
    return parsed(text.decode())


def test_fifty_watchers_hear_everything_and_hold_no_thread(
    parts: Services, submit: Submit, claim: Callable[..., dict[str, Any]]
) -> None:
    job = submit()["id"]
    token = claim()["token"]

    async def scene() -> list[list[dict[str, Any]]]:
        frames = Frames(parts)
        watching = [asyncio.create_task(_collected(parts, job, frames=frames)) for _ in range(50)]
        await asyncio.sleep(0.05)
        for first in range(0, 60, 20):
            await asyncio.to_thread(parts.events.append, job, token, steps(first, 20))
            await asyncio.sleep(0.01)
        await asyncio.to_thread(parts.leases.end, job, token, "done")
        return await asyncio.wait_for(asyncio.gather(*watching), 60)

    heard = asyncio.run(scene())
    assert len(heard) == 50
    assert all(each == heard[0] for each in heard)
    assert [each["done"] for each in heard[0] if each["event"] == "Step"] == list(range(60))


def test_what_many_watch_is_read_once(parts: Services, ended: str, monkeypatch: pytest.MonkeyPatch) -> None:
    real, asked = parts.events.after, list[int]()

    def after(job: str, last: int, limit: int) -> Any:
        asked.append(last)
        return real(job, last, limit)

    monkeypatch.setattr(parts.events, "after", after)

    async def scene() -> list[list[dict[str, Any]]]:
        frames = Frames(parts)
        return await asyncio.gather(*(_collected(parts, ended, frames=frames) for _ in range(20)))

    heard = asyncio.run(scene())
    assert all(each == heard[0] for each in heard)
    assert asked.count(0) == 1


def test_who_joins_a_look_misses_nothing(parts: Services, monkeypatch: pytest.MonkeyPatch) -> None:
    """The look that is joined began before the event was there."""
    event = EventRecord(7, "job", 1, 0, NOW, "Step", {})
    there, looking, go = list[EventRecord](), threading.Event(), threading.Event()

    def after(job: str, last: int, limit: int) -> list[EventRecord]:
        found = list(there)
        looking.set()
        assert go.wait(20)
        return found

    monkeypatch.setattr(parts.events, "after", after)

    async def scene() -> tuple[int | None, int | None]:
        frames = Frames(parts)
        first = asyncio.create_task(frames.after("job", 0))
        await asyncio.to_thread(looking.wait, 20)
        there.append(event)
        second = asyncio.create_task(frames.after("job", 0))
        await asyncio.sleep(0.01)
        go.set()
        found = await asyncio.gather(first, second)
        early, late = (None if each is None else each.last for each in found)
        return early, late

    assert asyncio.run(scene()) == (None, 7)


def test_watchers_end_when_the_server_stops(parts: Services, submit: Submit) -> None:
    job = submit()["id"]

    async def scene() -> list[dict[str, Any]]:
        closing = Closing(parts.bell)
        watching = asyncio.create_task(_collected(parts, job, closing=closing))
        await asyncio.sleep(0.1)
        assert not watching.done()
        closing.set()
        return await asyncio.wait_for(watching, 5)

    assert all(each["event"] != "end" for each in asyncio.run(scene()))


def test_a_watcher_outlives_a_database_that_is_away(
    parts: Services, ended: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(routes, "LOOK_SECONDS", 0.01)
    real, failures = parts.events.after, iter([True, False, True, False, False])

    def after(*args: Any, **named: Any) -> Any:
        if next(failures, False):
            raise DatabaseAwayError("away")
        return real(*args, **named)

    monkeypatch.setattr(parts.events, "after", after)
    found = asyncio.run(_collected(parts, ended))
    assert [each["done"] for each in found if each["event"] == "Step"] == list(range(7))
    assert found[-1]["event"] == "end"


def test_comments_keep_an_idle_stream_open(parts: Services, submit: Submit, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(routes, "LOOK_SECONDS", 0.01)
    monkeypatch.setattr(routes, "PING_SECONDS", 0.02)
    job = submit()["id"]

    async def scene() -> bytes:
        stream = routes._stream(parts, Frames(parts), Watchers(), Closing(parts.bell), job, 0)
        async for frame in stream:
            if frame.startswith(b":"):
                await stream.aclose()
                return frame
        return b""

    assert asyncio.run(scene()) == b": ping\n\n"


def test_a_watcher_of_a_deleted_job_ends(parts: Services, ended: str) -> None:
    parts.jobs.delete(ended)
    assert asyncio.run(_collected(parts, ended)) == []


def test_too_many_watchers_are_refused() -> None:
    watchers = Watchers(most=1)
    with watchers.one():
        assert watchers.count == 1
        with pytest.raises(TooManyError), watchers.one():
            pass
    assert watchers.count == 0


def test_many_events_take_no_more_memory_than_few(
    parts: Services, submit: Submit, claim: Callable[..., dict[str, Any]]
) -> None:
    job = submit()["id"]
    token = claim()["token"]
    for first in range(0, 4000, 1000):
        parts.events.append(job, token, steps(first, 1000))
    parts.leases.end(job, token, "done")

    async def peak(last: int) -> tuple[int, int]:
        count = size = 0
        tracemalloc.start()
        async for frame in routes._stream(parts, Frames(parts), Watchers(), Closing(parts.bell), job, last):
            count += frame.count(b"data: ")
            size = max(size, tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
        return count, size

    last = parts.events.after(job, 0, 5000)[-400].id
    few, small = asyncio.run(peak(last))
    many, large = asyncio.run(peak(0))
    assert many > 10 * few
    assert large < 2 * small + (1 << 20)


def test_the_app_counts_who_watches(app: FastAPI) -> None:
    assert app.state.watchers.count == 0
