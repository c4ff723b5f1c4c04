"""Uploads over HTTP: in chunks, resumed, and refused early."""

from __future__ import annotations

import asyncio
import hashlib
import io
from typing import Any

import numpy as np
import pytest
from fastapi import FastAPI
from starlette.requests import ClientDisconnect, Request
from starlette.testclient import TestClient
from starlette.types import Message, Receive

from compressor.service.api.bodies import pieces
from compressor.service.services import Services
from tests.service.api.conftest import HERE, RECIPE

CHUNK = {"Content-Type": "application/offset+octet-stream"}


def arrays() -> bytes:
    stream = io.BytesIO()
    np.savez(stream, x_train=np.zeros((4, 1, 8, 8), np.float32), y_train=np.arange(4) % 2)
    return stream.getvalue()


def begun(client: TestClient, data: bytes, **more: Any) -> dict[str, Any]:
    body = {"name": "data.npz", "kind": "arrays", "bytes": len(data), **more}
    answer = client.post("/v1/uploads", json=body)
    assert answer.status_code == 201, answer.text
    found: dict[str, Any] = answer.json()
    assert answer.headers["location"] == f"/v1/uploads/{found['id']}"
    return found


def sent(client: TestClient, upload: str, offset: int, data: bytes) -> Any:
    return client.patch(f"/v1/uploads/{upload}", content=data, headers={**CHUNK, "Upload-Offset": str(offset)})


def test_chunks_are_put_together_and_checked(client: TestClient) -> None:
    data = arrays()
    upload = begun(client, data, sha256=hashlib.sha256(data).hexdigest())["id"]
    assert sent(client, upload, 0, data[:100]).json()["offset"] == 100
    head = client.head(f"/v1/uploads/{upload}")
    assert (head.headers["upload-offset"], head.headers["upload-length"]) == ("100", str(len(data)))
    assert client.post(f"/v1/uploads/{upload}/finish").status_code == 409
    assert sent(client, upload, 100, data[100:]).json()["offset"] == len(data)
    done = client.post(f"/v1/uploads/{upload}/finish")
    assert (done.status_code, done.json()["state"]) == (200, "done")
    job = client.post("/v1/jobs", json={**RECIPE, "data": f"upload:{upload}"})
    assert (job.status_code, job.json()["uploads"]) == (201, [upload])
    assert client.delete(f"/v1/uploads/{upload}").status_code == 409  # a job needs it
    wrong = client.post("/v1/jobs", json={**RECIPE, "weights": f"upload:{upload}"})
    assert (wrong.status_code, wrong.json()["key"]) == (422, "weights")


def test_a_chunk_elsewhere_says_where_to_go_on(client: TestClient) -> None:
    data = arrays()
    upload = begun(client, data)["id"]
    sent(client, upload, 0, data[:10])
    for offset in (0, 5, 11):
        answer = sent(client, upload, offset, data[:5])
        assert answer.status_code == 409
        assert answer.json()["offset"] == 10
        assert answer.headers["upload-offset"] == "10"
    assert sent(client, upload, -1, b"x").status_code == 422


def test_more_than_was_said_is_refused_before_it_is_read(client: TestClient, parts: Services) -> None:
    data = arrays()
    upload = begun(client, data)["id"]
    assert sent(client, upload, 0, data + b"x").status_code == 413
    assert parts.uploads.get(upload).received == 0


@pytest.mark.parametrize("arrived", [1, 700, 1 << 20, (1 << 20) + 700])
def test_what_came_of_a_chunk_that_broke_off_stays(app: FastAPI, client: TestClient, arrived: int) -> None:
    upload = begun(client, bytes(1 << 20), bytes=1 << 20)["id"] if arrived <= 1 << 20 else None
    messages = [{"type": "http.request", "body": bytes(min(500, arrived)), "more_body": True}]
    messages += [{"type": "http.request", "body": bytes(max(0, arrived - 500)), "more_body": True}]
    request = Request({"type": "http", "method": "PATCH", "headers": []}, _received([*messages, _GONE]))

    found = bytearray()

    async def read() -> None:
        async for piece in pieces(request, 2 << 20):
            found.extend(piece)

    with pytest.raises(ClientDisconnect):
        asyncio.run(read())
    assert len(found) == arrived
    if upload is None:
        return

    async def patch() -> None:
        headers = [(b"host", HERE.removeprefix("http://").encode()), (b"upload-offset", b"0")]
        headers.append((b"content-type", CHUNK["Content-Type"].encode()))
        scope = {"type": "http", "method": "PATCH", "path": f"/v1/uploads/{upload}", "headers": headers}
        scope |= {"query_string": b"", "client": ("127.0.0.1", 5), "server": ("127.0.0.1", 8080), "scheme": "http"}
        await app(scope, _received([*messages, _GONE]), _unheard)

    asyncio.run(patch())
    assert client.get(f"/v1/uploads/{upload}").json()["offset"] == arrived


_GONE: Message = {"type": "http.disconnect"}


def _received(messages: list[Message]) -> Receive:
    left = iter(messages)

    async def receive() -> Message:
        return next(left, _GONE)

    return receive


async def _unheard(message: Message) -> None:
    """Whom this is told has gone."""


def test_too_large_bodies_are_told_to_the_byte(client: TestClient) -> None:
    upload = begun(client, arrays())["id"]
    answer = sent(client, upload, 0, arrays() + b"x")
    size = len(arrays())
    assert answer.status_code == 413
    assert f"{size + 1:,} bytes" in answer.json()["detail"]
    assert f"{size:,} bytes" in answer.json()["detail"]


@pytest.mark.parametrize("offset", [0, 1, 4])
def test_a_refused_upload_says_so_to_whoever_goes_on_with_it(client: TestClient, offset: int) -> None:
    upload = begun(client, b"1234")["id"]
    sent(client, upload, 0, b"1234")
    assert client.post(f"/v1/uploads/{upload}/finish").status_code == 422
    answer = sent(client, upload, offset, b"1")
    assert answer.status_code == 409
    assert "refused; begin another" in answer.json()["detail"]


def test_too_large_ones_are_refused_when_they_are_announced(client: TestClient) -> None:
    body = {"name": "x.npz", "kind": "arrays", "bytes": (1 << 20) + 1}
    assert client.post("/v1/uploads", json=body).status_code == 413


@pytest.mark.parametrize(
    "more",
    [
        {"kind": "code"},
        {"kind": "pickle"},
        {"bytes": -1},
        {"bytes": 1.5},
        {"bytes": 2**60},
        {"sha256": "x"},
        {"name": ""},
        {"name": "x" * 999},
        {"path": "/etc"},
    ],
)
def test_what_cannot_be_announced(client: TestClient, more: dict[str, Any]) -> None:
    answer = client.post("/v1/uploads", json={"name": "x.npz", "kind": "arrays", "bytes": 1, **more})
    assert answer.status_code in (413, 422)


@pytest.mark.parametrize("kind", ["weights", "arrays", "images"])
def test_what_is_not_of_its_kind_is_refused_with_the_reason(client: TestClient, kind: str) -> None:
    data = b"\x80\x04\x95import os; os.system"
    upload = begun(client, data, kind=kind)["id"]
    sent(client, upload, 0, data)
    answer = client.post(f"/v1/uploads/{upload}/finish")
    assert (answer.status_code, answer.json()["exit_code"]) == (422, 2)
    job = client.post("/v1/jobs", json={**RECIPE, "data": f"upload:{upload}"})
    assert job.status_code == 422


def test_a_wrong_hash_is_refused(client: TestClient) -> None:
    data = arrays()
    upload = begun(client, data, sha256="0" * 64)["id"]
    sent(client, upload, 0, data)
    assert client.post(f"/v1/uploads/{upload}/finish").status_code == 422


def test_lists_and_drops(client: TestClient) -> None:
    upload = begun(client, arrays())["id"]
    assert [each["id"] for each in client.get("/v1/uploads").json()["uploads"]] == [upload]
    assert client.delete(f"/v1/uploads/{upload}").status_code == 204
    assert client.get(f"/v1/uploads/{upload}").status_code == 404
