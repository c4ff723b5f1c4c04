"""One line for whatever goes wrong between a client and its service, with the exit class that the command line has."""

from __future__ import annotations

import httpx
import pytest

from compressor.errors import CompressorError, UnreachableBudgetError, UsageError
from compressor.service.client.connection import Connection
from compressor.service.client.errors import ServerAwayError
from compressor.service.errors import ConflictError, NotFoundError, TooManyError, UnauthorizedError
from tests.service.client.fakes import connection, problem


@pytest.mark.parametrize(
    "url",
    [
        "",
        "nowhere",
        "ftp://host",
        "http://",
        "http://host:99999",
        "http://me:pw@host",
        "http://host/?a=1",
        "http://h\n",
    ],
)
def test_what_is_no_address(url: str) -> None:
    with pytest.raises(UsageError, match="write it as http"):
        Connection(url, None)


@pytest.mark.parametrize("key", [" ", "two words", "line\nbreak", "größe"])
def test_what_is_no_key(key: str) -> None:
    with pytest.raises(UsageError, match="The key of the service is none"):
        Connection("http://host", key)


def test_the_key_goes_along_and_paths_stay() -> None:
    seen = []

    def answer(request: httpx.Request) -> httpx.Response:
        seen.append((str(request.url), request.headers["Authorization"]))
        return httpx.Response(200, json={})

    there = Connection("http://host/team/v1/", " k1\n", transport=httpx.MockTransport(answer))
    there.document("GET", "/jobs")
    assert seen == [("http://host/team/v1/jobs", "Bearer k1")]


def test_nobody_there_is_said_at_once(pauses: list[float]) -> None:
    def answer(request: httpx.Request) -> httpx.Response:
        raise httpx.ConnectError("Connection refused")

    with pytest.raises(ServerAwayError, match=r"No service answers at http://service \(Connection refused\)"):
        connection(answer).document("GET", "/jobs")
    assert pauses == []


def test_who_was_there_is_asked_again() -> None:
    calls = []

    def answer(request: httpx.Request) -> httpx.Response:
        calls.append(request.method)
        if len(calls) == 2:
            raise httpx.ReadError("broke")
        if len(calls) == 3:
            return problem(503, "The database does not answer.")
        return httpx.Response(200, json={"n": len(calls)})

    there = connection(answer)
    assert there.document("GET", "/jobs") == {"n": 1}
    assert there.document("GET", "/jobs") == {"n": 4}


def test_what_may_not_be_sent_twice_is_not() -> None:
    calls = []

    def answer(request: httpx.Request) -> httpx.Response:
        calls.append(request.method)
        if len(calls) > 1:
            raise httpx.ReadError("broke")
        return httpx.Response(200, json={})

    there = connection(answer)
    there.document("GET", "/jobs")
    with pytest.raises(ServerAwayError):
        there.document("POST", "/jobs/j/retry", again=False)
    assert len(calls) == 2


def test_a_busy_service_says_when_to_come_back(pauses: list[float]) -> None:
    answers = iter([problem(429, "full"), problem(429, "full"), httpx.Response(200, json={})])

    def answer(request: httpx.Request) -> httpx.Response:
        found = next(answers)
        if found.status_code == 429:
            found.headers["Retry-After"] = "3"
        return found

    connection(answer).document("GET", "/jobs")
    assert pauses == [3.0, 3.0]


@pytest.mark.parametrize(
    ("answer", "kind", "code", "text"),
    [
        (problem(401, "There is no such key."), UnauthorizedError, 2, "refuses the key: There is no such key"),
        (problem(404, "There is no job x."), NotFoundError, 2, r"^There is no job x\.$"),
        (problem(409, "It has ended."), ConflictError, 1, "It has ended"),
        (problem(429, "The queue is full."), TooManyError, 1, "The queue is full"),
        (problem(422, "line 3: no.", exit_code=2, key="lut"), UsageError, 2, "line 3: no"),
        (problem(422, "too low", exit_code=3), UnreachableBudgetError, 3, "too low"),
        (problem(503, "no database"), ServerAwayError, 1, r"cannot answer now \(no database\)"),
        (httpx.Response(200, text="<html>hello"), CompressorError, 1, "not as a compressor service"),
        (httpx.Response(404, text="<html>gone"), CompressorError, 1, "not as a compressor service"),
        (httpx.Response(200, json=[1]), CompressorError, 1, "not as a compressor service"),
        (httpx.Response(302, headers={"Location": "http://evil/"}), CompressorError, 1, "sends elsewhere"),
        (
            httpx.Response(404, json={}, headers={"Compressor-API": "2"}),
            CompressorError,
            1,
            "speaks version 2 of the API and this program version 1; update it",
        ),
    ],
)
def test_one_line_each(answer: httpx.Response, kind: type[CompressorError], code: int, text: str) -> None:
    with pytest.raises(kind, match=text) as raised:
        connection(lambda request: answer).document("GET", "/jobs/x")
    assert raised.value.exit_code == code
    assert "\n" not in str(raised.value)
    assert "secret" not in str(raised.value)
