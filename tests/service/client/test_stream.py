"""Server-sent events: read as the standard says, each once, across broken connections."""

from __future__ import annotations

import json

import httpx
import pytest

from compressor.errors import CompressorError
from compressor.service.client.errors import ServerAwayError
from compressor.service.client.stream import JobEvent, job_events, parsed
from compressor.service.errors import NotFoundError
from tests.service.client.fakes import Pieces, connection, problem

STREAM = (
    b'retry: 1000\n\n: ping\n\nid: 1\nevent: state\ndata: {"state": "running"}\n\n'
    b'id:2\r\nevent:Message\r\ndata:{"text":\r\ndata: "a\xe2\x80\xa8b"}\r\n\r\n'
    b"id: 3\nevent: nothing\n\nid: 4\ndata: {}\n\nevent: cut\ndata: {}\n"
)
EVENTS = [
    JobEvent("1", "state", {"state": "running"}),
    JobEvent("2", "Message", {"text": "a\u2028b"}),
    JobEvent("4", "message", {}),
]


@pytest.mark.parametrize("size", [1, 2, 3, 7, 64, 10_000])
def test_events_come_out_however_they_are_cut(size: int) -> None:
    assert list(parsed(STREAM[i : i + size] for i in range(0, len(STREAM), size))) == EVENTS


@pytest.mark.parametrize(
    "data", [b"data: no\n\n", b"data: [1]\n\n", b"data: " + b"[" * 100_000 + b"\n\n", b"x" * (17 << 20)]
)
def test_what_is_no_event(data: bytes) -> None:
    with pytest.raises(CompressorError, match="look at the address"):
        list(parsed([data]))


class Job:
    """The events of a job, from the one after Last-Event-ID; each answer breaks after some bytes."""

    def __init__(self, kinds: list[str], breaks: list[int | None]) -> None:
        self.kinds, self.breaks, self.asked = kinds, breaks, list[str | None]()

    def __call__(self, request: httpx.Request) -> httpx.Response:
        last = request.headers.get("Last-Event-ID")
        self.asked.append(last)
        body = "".join(
            f"id: {number}\nevent: {kind}\ndata: {json.dumps({'n': number})}\n\n"
            for number, kind in enumerate(self.kinds, 1)
            if number > int(last or 0)
        )
        breaks = self.breaks.pop(0) if self.breaks else None
        if breaks == -1:
            raise httpx.ConnectError("refused")
        return httpx.Response(200, stream=Pieces(body.encode(), 5, breaks))


def test_each_comes_once_whatever_breaks() -> None:
    kinds = ["StageBegan", "Step", "Step", "StageEnded", "end"]
    job = Job(kinds, [9, -1, 0, 12, -1, -1, None])
    told: list[str] = []
    found = list(job_events(connection(job), "/jobs/j1/events", broken=told.append))
    assert [event.kind for event in found] == kinds
    assert [event.id for event in found] == list("12345")
    assert job.asked[0] is None
    assert job.asked[-1] is not None
    assert len(told) == 3, "once for each time that it breaks"


def test_one_goes_on_after_what_is_known() -> None:
    found = list(job_events(connection(Job(["a", "b", "end"], [])), "/jobs/j1/events", after="2"))
    assert [event.id for event in found] == ["3"]


def test_a_job_that_was_tried_again_goes_on_after_its_first_end() -> None:
    kinds = ["state", "end", "state", "Message", "end"]
    assert [e.kind for e in job_events(connection(Job(kinds, [14])), "/jobs/j1/events")] == kinds


def test_patience_ends() -> None:
    job = Job(["a", "b"], [9, -1, -1])
    with pytest.raises(ServerAwayError, match="No service answers"):
        list(job_events(connection(job), "/jobs/j1/events", patience_s=-1.0))
    assert len(job.asked) == 1


def test_where_nobody_ever_was_there_is_no_patience(pauses: list[float]) -> None:
    def answer(request: httpx.Request) -> httpx.Response:
        raise httpx.ConnectError("refused")

    with pytest.raises(ServerAwayError, match="No service answers"):
        list(job_events(connection(answer), "/jobs/j1/events"))
    assert pauses == []


def test_a_refusal_is_none_to_try_again() -> None:
    calls = []

    def answer(request: httpx.Request) -> httpx.Response:
        calls.append(request)
        return problem(404, "There is no job j1.")

    with pytest.raises(NotFoundError, match="no job j1"):
        list(job_events(connection(answer), "/jobs/j1/events"))
    assert len(calls) == 1
