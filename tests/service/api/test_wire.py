"""Over real connections: bodies that break off, lengths that lie, and many who watch."""

from __future__ import annotations

import hashlib
import json
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import uvicorn
from fastapi import FastAPI

from compressor.service.access.slow import patient_protocol
from compressor.service.api.threads import BODIES, THREADS
from compressor.service.serve import bound
from compressor.service.services import Services
from tests.service.api.conftest import RECIPE

SECONDS = 60
WATCHERS = 50


@pytest.fixture
def place(app: FastAPI) -> Iterator[tuple[str, int]]:
    """Where the app is served."""
    listening = bound("127.0.0.1", 0)
    config = uvicorn.Config(app, http=patient_protocol(), log_config=None, timeout_graceful_shutdown=2)
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
    thread.start()
    until = time.monotonic() + SECONDS
    while not server.started and time.monotonic() < until:
        time.sleep(0.01)
    yield "127.0.0.1", listening.getsockname()[1]
    app.state.closing.set()
    server.should_exit = True
    thread.join(SECONDS)
    assert not thread.is_alive()


@pytest.fixture
def asking(place: tuple[str, int]) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=f"http://{place[0]}:{place[1]}", timeout=SECONDS) as found:
        yield found


def said(place: tuple[str, int], *lines: str, body: bytes = b"", end: bool = True) -> bytes:
    """What is answered to a request as it is written. With ``end`` no more is sent after ``body``."""
    head = [lines[0], f"Host: {place[0]}:{place[1]}", *lines[1:], "Connection: close", "", ""]
    with socket.create_connection(place, SECONDS) as connection:
        connection.sendall("\r\n".join(head).encode() + body)
        if end:
            connection.shutdown(socket.SHUT_WR)
        found = b""
        while piece := connection.recv(65536):
            found += piece
    return found


def test_a_recipe_that_breaks_off_leaves_nothing(place: tuple[str, int], asking: httpx.Client) -> None:
    whole = json.dumps(RECIPE).encode()
    lines = ("POST /v1/jobs HTTP/1.1", "Content-Type: application/json", f"Content-Length: {len(whole)}")
    said(place, *lines, body=whole[:-1])
    assert asking.get("/v1/jobs").json()["jobs"] == []
    assert b" 201 " in said(place, *lines, body=whole, end=False)


def test_a_content_that_breaks_off_leaves_nothing(
    place: tuple[str, int], asking: httpx.Client, parts: Services
) -> None:
    data = b"x" * 300_000
    digest = hashlib.sha256(data).hexdigest()
    lines = (f"PUT /v1/work/blobs/{digest} HTTP/1.1", "Content-Type: application/octet-stream")
    said(place, *lines, f"Content-Length: {len(data)}", body=data[:200_000])
    until = time.monotonic() + SECONDS
    folder = Path(parts.settings.artefacts_url)
    while _files(folder) and time.monotonic() < until:
        time.sleep(0.02)
    assert _files(folder) == []
    assert asking.head(f"/v1/work/blobs/{digest}").status_code == 404
    assert asking.put(f"/v1/work/blobs/{digest}", content=data, headers=_BYTES).status_code == 201


def test_a_chunk_that_breaks_off_is_gone_on_with(place: tuple[str, int], asking: httpx.Client) -> None:
    data = b"\x93" * 500_000
    upload = asking.post("/v1/uploads", json={"name": "x.npz", "kind": "arrays", "bytes": len(data)}).json()["id"]
    lines = (f"PATCH /v1/uploads/{upload} HTTP/1.1", "Content-Type: application/offset+octet-stream")
    said(place, *lines, "Upload-Offset: 0", f"Content-Length: {len(data)}", body=data[:300_000])
    offset = asking.get(f"/v1/uploads/{upload}").json()["offset"]
    assert 0 <= offset <= 300_000
    until = time.monotonic() + SECONDS
    while True:  # what came before the break may be stored only now: then the answer is that, or where to go on
        headers = {**_CHUNK, "Upload-Offset": str(offset)}
        answer = asking.patch(f"/v1/uploads/{upload}", content=data[offset:], headers=headers)
        if answer.status_code == 200:
            break
        assert answer.status_code == 409, answer.text
        assert time.monotonic() < until, answer.text
        offset = asking.get(f"/v1/uploads/{upload}").json()["offset"]
        assert 0 <= offset <= 300_000
    assert answer.json()["offset"] == len(data)


@pytest.mark.parametrize(
    ("line", "kind"),
    [
        ("POST /v1/jobs HTTP/1.1", "application/json"),
        ("POST /v1/inspect HTTP/1.1", "application/yaml"),
        (f"PUT /v1/work/blobs/{'0' * 64} HTTP/1.1", "application/octet-stream"),
        ("POST /v1/work/claim HTTP/1.1", "application/json"),
    ],
)
def test_too_much_is_refused_before_it_is_sent(place: tuple[str, int], line: str, kind: str) -> None:
    found = said(place, line, f"Content-Type: {kind}", "Content-Length: 99999999999", end=False)
    assert b" 413 " in found.partition(b"\r\n")[0]
    assert b"application/problem+json" in found


@pytest.mark.parametrize(
    "lines",
    [
        ("GET /v1/jobs/../../etc/passwd HTTP/1.1",),
        ("GET /v1/jobs/%2e%2e/%2e%2e/etc/passwd HTTP/1.1",),
        ("POST /v1/jobs HTTP/1.1", "Content-Type: application/json", "Content-Length: -1"),
        ("POST /v1/jobs HTTP/1.1", "Content-Type: application/json", "Content-Length: 1x"),
        ("POST /v1/jobs HTTP/1.1", "Content-Type: application/json", "Content-Length: 5", "Content-Length: 6"),
        ("NONSENSE",),
    ],
)
def test_what_is_no_request_is_refused(place: tuple[str, int], lines: tuple[str, ...]) -> None:
    status = said(place, *lines).partition(b"\r\n")[0]
    assert status.split(b" ")[1] in (b"400", b"404", b"422")


def test_fifty_watchers_take_no_thread_each(place: tuple[str, int], asking: httpx.Client, parts: Services) -> None:
    job = asking.post("/v1/jobs", json=RECIPE).json()["id"]
    connections = []
    for _ in range(WATCHERS):
        connection = socket.create_connection(place, SECONDS)
        lines = [f"GET /v1/jobs/{job}/events HTTP/1.1", f"Host: {place[0]}:{place[1]}", "", ""]
        connection.sendall("\r\n".join(lines).encode())
        connections.append(connection)
    until = time.monotonic() + SECONDS
    while _watchers(asking) < WATCHERS and time.monotonic() < until:
        time.sleep(0.05)
    assert _watchers(asking) == WATCHERS
    assert asking.get("/v1/jobs").status_code == 200  # the others are answered meanwhile
    names = [thread.name for thread in threading.enumerate() if "AnyIO" in thread.name]
    assert len(names) <= THREADS + BODIES + 8  # those of the guard are apart
    parts.jobs.cancel(job)
    for connection in connections:
        text = b""
        while b"event: end" not in text:
            piece = connection.recv(65536)
            assert piece
            text += piece
        connection.close()


def _watchers(asking: httpx.Client) -> float:
    text = asking.get("/metrics").text
    return float(next(line for line in text.splitlines() if line.startswith("compressor_watchers ")).split()[1])


def _files(folder: Path) -> list[Any]:
    return [path for path in folder.rglob("*") if path.is_file() and path.name != "store.txt"]


_BYTES = {"Content-Type": "application/octet-stream"}
_CHUNK = {"Content-Type": "application/offset+octet-stream"}
