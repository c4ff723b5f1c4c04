"""Connections that dawdle are closed, by a real server."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from compressor.service.access.slow import patient_protocol

uvicorn = pytest.importorskip("uvicorn")


async def app(scope: dict, receive: object, send: object) -> None:  # type: ignore[type-arg]
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})  # type: ignore[operator]
    await send({"type": "http.response.body", "body": b"ok"})  # type: ignore[operator]


@contextmanager
def serving(seconds: float) -> Iterator[int]:
    config = uvicorn.Config(
        app, port=0, lifespan="off", log_level="critical", http=patient_protocol(seconds), timeout_keep_alive=60
    )
    listening = socket.create_server(("127.0.0.1", 0))
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
    thread.start()
    try:
        yield listening.getsockname()[1]
    finally:
        server.should_exit = True
        thread.join()
        listening.close()


def read_to_end(connection: socket.socket) -> bytes:
    """All that comes until the server closes."""
    connection.settimeout(30)
    found = b""
    while chunk := connection.recv(4096):
        found += chunk
    return found


@pytest.mark.parametrize("sent", [b"", b"GET / HTTP/1.1\r\nHost: a\r\nX-Slow: "])
def test_headers_that_do_not_come_are_not_waited_for(sent: bytes) -> None:
    with serving(0.2) as port, socket.create_connection(("127.0.0.1", port)) as connection:
        connection.sendall(sent)
        assert read_to_end(connection) == b""


def test_a_second_request_has_as_little_time_as_the_first() -> None:
    request = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"
    with serving(0.2) as port, socket.create_connection(("127.0.0.1", port)) as connection:
        connection.sendall(request)
        assert connection.recv(4096).startswith(b"HTTP/1.1 200")
        connection.sendall(request[:-2])
        assert b"200" not in read_to_end(connection)


def test_others_are_served() -> None:
    request = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"
    with serving(30) as port, socket.create_connection(("127.0.0.1", port)) as connection:
        connection.sendall(request[:10])
        connection.sendall(request[10:])
        stream = connection.makefile("rb")
        assert b"".join(stream.readline() for _ in range(5)).startswith(b"HTTP/1.1 200")
        assert stream.read(2) == b"ok"
        connection.sendall(request)
        assert b"".join(stream.readline() for _ in range(5)).startswith(b"HTTP/1.1 200")
        assert stream.read(2) == b"ok"
