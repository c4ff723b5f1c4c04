"""The token of the page's forms, read without the route noticing."""

from __future__ import annotations

import asyncio
import stat
from pathlib import Path
from typing import Any

import pytest
from starlette.datastructures import Headers

from compressor.service.access.csrf import FORM_BYTES, check_csrf, secret_of, token_for
from compressor.service.errors import ForbiddenError, TooLargeError

FORM = "application/x-www-form-urlencoded"
FILES = "multipart/form-data; boundary=x"


def check(headers: dict[str, str], *chunks: bytes) -> bytes:
    """Check for the token ``right``; gives the body that the route reads after it."""
    parts = [{"type": "http.request", "body": c, "more_body": n + 1 < len(chunks)} for n, c in enumerate(chunks)]

    async def receive() -> dict[str, Any]:
        return parts.pop(0) if parts else {"type": "http.disconnect"}

    async def run() -> bytes:
        rest = await check_csrf(Headers(headers), receive, "right")
        body = b""
        while (message := await rest())["type"] == "http.request":
            body += message["body"]
            if not message["more_body"]:
                break
        return body

    return asyncio.run(run())


def multipart(token: bytes, first: bytes = b"csrf_token") -> bytes:
    return (
        b'--x\r\nContent-Disposition: form-data; name="' + first + b'"\r\n\r\n' + token + b"\r\n--x\r\n"
        b'Content-Disposition: form-data; name="file"; filename="a"\r\n\r\n' + b"z" * 5000 + b"\r\n--x--\r\n"
    )


def test_headers_and_forms_carry_it_and_bodies_arrive_whole() -> None:
    assert check({"x-csrf-token": "right", "content-type": "application/json"}, b"{}") == b"{}"
    assert check({"content-type": FORM}, b"name=a&csrf_", b"token=right") == b"name=a&csrf_token=right"
    body = multipart(b"right")
    assert check({"content-type": FILES}, body[:20], body[20:1500], body[1500:]) == body


@pytest.mark.parametrize(
    ("headers", "body"),
    [
        ({}, b""),
        ({"x-csrf-token": ""}, b""),
        ({"x-csrf-token": "wrong", "content-type": FORM}, b"csrf_token=right"),
        ({"content-type": FORM}, b"csrf_token=wrong"),
        ({"content-type": FORM}, b"csrf_token=wrong&csrf_token=right"),
        ({"content-type": FORM}, b"\xff\xfe"),
        ({"content-type": "application/json"}, b'{"csrf_token": "right"}'),
        ({"content-type": "text/plain"}, b"csrf_token=right"),
        ({"content-type": FILES}, multipart(b"wrong")),
        ({"content-type": FILES}, multipart(b"right", b"other")),
        ({"content-type": FILES}, b""),
    ],
)
def test_without_it_nothing_is_done(headers: dict[str, str], body: bytes) -> None:
    with pytest.raises(ForbiddenError):
        check(headers, body)


def test_a_form_that_never_ends_is_not_read_to_its_end() -> None:
    with pytest.raises(TooLargeError):
        check({"content-type": FORM}, *[b"a" * FORM_BYTES] * 3)


def test_the_secret_is_the_servers_own(tmp_path: Path) -> None:
    first = secret_of(tmp_path / "data")
    assert len(first) == 32
    assert secret_of(tmp_path / "data") == first
    assert secret_of(tmp_path / "other") != first
    assert stat.S_IMODE((tmp_path / "data" / "secret").stat().st_mode) == 0o600
    assert [file.name for file in (tmp_path / "data").iterdir()] == ["secret"]
    assert token_for(first, "a") != token_for(first, "b")


def test_half_a_secret_is_made_anew(tmp_path: Path) -> None:
    (tmp_path / "secret").write_bytes(b"")
    assert len(secret_of(tmp_path)) == 32
