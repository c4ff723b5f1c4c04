"""The socket of a job: what its child asks comes to the server, whatever happens in between, and nothing else does."""

from __future__ import annotations

import hashlib
import json
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx
import pytest

from compressor.service.devices import channel
from compressor.service.devices.channel import Channel, ChannelError
from compressor.service.devices.relay import Relay
from compressor.service.errors import NotFoundError

Answer = Callable[[httpx.Request], httpx.Response]


class Server:
    """Says what the test says, and remembers what it was asked."""

    def __init__(self, folder: Path) -> None:
        self.asked: list[tuple[str, str, Any]] = []
        self.answers: list[httpx.Response | Exception] = []
        self.folder = folder
        self.blobs: dict[str, bytes] = {}

    def handle(self, request: httpx.Request) -> httpx.Response:
        body = request.read()
        path = request.url.path
        if "/blobs/" in path:
            sha256 = path.rpartition("/")[2]
            if request.method == "PUT":
                self.blobs[sha256] = body
            return httpx.Response(201 if request.method == "PUT" else 200 if sha256 in self.blobs else 404)
        self.asked.append((request.method, path, json.loads(body)))
        found = self.answers.pop(0)
        if isinstance(found, Exception):
            raise found
        return found


@pytest.fixture
def server(tmp_path: Path) -> Server:
    return Server(tmp_path)


@pytest.fixture
def relay(server: Server, tmp_path: Path) -> Iterator[Relay]:
    client = httpx.Client(transport=httpx.MockTransport(server.handle), base_url="http://server")
    with Relay(tmp_path, client, "job1", "token") as found:
        yield found


@pytest.fixture
def asking(relay: Relay, tmp_path: Path) -> Iterator[Channel]:
    found = Channel(tmp_path / channel.FOLDER / channel.SOCKET)
    yield found
    found.close()


def ok(document: Any, status: int = 200) -> httpx.Response:
    return httpx.Response(status, json=document)


def test_a_question_goes_with_the_lease_and_waits_for_its_answer(server: Server, asking: Channel) -> None:
    answer = {"result": {"busy": False}}
    server.answers = [ok({"session": "s1"}, 201), ok({"state": "waiting"}), ok({"state": "done", "answer": answer})]
    assert asking.ask({"do": "open", "name": "jetson-1"}) == {"session": "s1"}
    found = asking.ask({"do": "ask", "session": "s1", "key": "k", "request": {"operation": "busy"}})
    assert found["answer"] == answer
    assert [(method, path) for method, path, _ in server.asked] == [
        ("POST", "/v1/work/job1/device"),
        *[("POST", "/v1/work/job1/device/s1")] * 2,
    ]
    assert all(document["token"] == "token" for _, _, document in server.asked)
    assert server.asked[1] == server.asked[2], "the same key is the same measurement"


def test_what_is_waited_for_is_said_until_it_is_there(server: Server, relay: Relay, asking: Channel) -> None:
    seen: list[str | None] = []
    steps = iter([ok({"state": "waiting", "waiting_for": "device x, last seen 40 s ago"})] * 2)

    class Answers(list[Any]):
        def pop(self, index: Any = 0) -> Any:
            seen.append(relay.waiting_for)
            return next(steps, ok({"state": "done", "answer": {}}))

    server.answers = Answers()
    asking.ask({"do": "ask", "session": "s1", "key": "k", "request": {}})
    assert seen == [None, "device x, last seen 40 s ago", "device x, last seen 40 s ago"]
    assert relay.waiting_for is None


def test_a_server_that_is_away_is_waited_for(server: Server, relay: Relay, asking: Channel) -> None:
    server.answers = [httpx.ConnectError("refused"), ok({"detail": "busy"}, 503), ok({"session": "s1"}, 201)]
    assert asking.ask({"do": "open", "name": "x"}) == {"session": "s1"}
    assert len(server.asked) == 3
    assert relay.waiting_for is None


def test_refusals_are_said_in_the_server_s_words(server: Server, asking: Channel) -> None:
    server.answers = [ok({"detail": "There is no device 'x'."}, 404), ok({"detail": "The lease has run out."}, 409)]
    with pytest.raises(NotFoundError, match="no device 'x'"):
        asking.ask({"do": "open", "name": "x"})
    with pytest.raises(ChannelError, match="lease has run out"):
        asking.ask({"do": "table", "session": "s1"})


def test_files_travel_once_and_whole(server: Server, asking: Channel, tmp_path: Path) -> None:
    content = bytes(range(256)) * 50_000  # more than is held in memory
    file, sha256 = tmp_path / "x.onnx", hashlib.sha256(content).hexdigest()
    file.write_bytes(content)
    assert asking.ask({"do": "has", "sha256": sha256}) == {"has": False}
    asking.ask({"do": "put", "sha256": sha256}, file)
    assert server.blobs == {sha256: content}
    assert asking.ask({"do": "has", "sha256": sha256}) == {"has": True}


@pytest.mark.parametrize(
    "document",
    [
        {"do": "ask", "session": "../../jobs", "key": "k", "request": {}},
        {"do": "close", "session": "s1/../../x"},
        {"do": "close", "session": ""},
        {"do": "close"},
        {"do": "submit", "session": "s1"},
        {"do": "has", "sha256": "../../etc/passwd"},
        {},
    ],
)
def test_a_child_reaches_nothing_else(document: dict[str, Any], server: Server, asking: Channel) -> None:
    with pytest.raises(ChannelError):
        asking.ask(document)
    assert server.asked == []


def test_nonsense_closes_the_connection_and_harms_nobody(server: Server, asking: Channel, tmp_path: Path) -> None:
    for words in (b"GET / HTTP/1.1\r\n\r\n", struct.pack(">IQ", 1 << 31, 0), struct.pack(">IQ", 2, 0) + b"[]"):
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as other:
            other.settimeout(10)
            with channel.address(tmp_path / channel.FOLDER / channel.SOCKET) as name:
                other.connect(name)
            other.sendall(words)
            with suppress(ConnectionResetError):
                assert other.recv(10) == b""
    server.answers = [ok({"session": "s1"}, 201)]
    assert asking.ask({"do": "open", "name": "x"}) == {"session": "s1"}


def test_a_relay_that_ends_is_told_to_the_child(server: Server, tmp_path: Path) -> None:
    client = httpx.Client(transport=httpx.MockTransport(server.handle), base_url="http://server")
    asking = Channel(tmp_path / channel.FOLDER / channel.SOCKET)
    server.answers = [httpx.ConnectError("refused")] * 100  # type: ignore[list-item]
    failed: list[Exception] = []

    def ask() -> None:
        try:
            asking.ask({"do": "open", "name": "x"})
        except ChannelError as error:
            failed.append(error)

    with Relay(tmp_path, client, "job1", "token") as relay:
        thread = threading.Thread(target=ask)
        thread.start()
        while relay.waiting_for is None:
            thread.join(0.01)
        assert relay.waiting_for == "the server, which does not answer"
    thread.join(20)
    assert len(failed) == 1
    with pytest.raises(ChannelError, match=r"no way to devices|does not answer any more"):
        asking.ask({"do": "open", "name": "x"})


def test_folders_with_long_names(server: Server, tmp_path: Path) -> None:
    folder = tmp_path / ("x" * 100) / ("y" * 100)
    folder.mkdir(parents=True)
    client = httpx.Client(transport=httpx.MockTransport(server.handle), base_url="http://server")
    server.answers = [ok({"session": "s1"}, 201)]
    with Relay(folder, client, "job1", "token"):
        asking = Channel(folder / channel.FOLDER / channel.SOCKET)
        assert asking.ask({"do": "open", "name": "x"}) == {"session": "s1"}
        asking.close()
