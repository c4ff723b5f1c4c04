"""A service of a few lines, which breaks connections when it is told to."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator
from typing import Any

import httpx

from compressor.service.client.connection import Connection

Answer = Callable[[httpx.Request], httpx.Response]


def connection(answer: Answer, key: str | None = "secret") -> Connection:
    return Connection("http://service", key, transport=httpx.MockTransport(answer))


def problem(status: int, detail: str, **more: Any) -> httpx.Response:
    document = {"type": "about:blank", "title": "no", "status": status, "detail": detail, **more}
    headers = {"Content-Type": "application/problem+json"}
    return httpx.Response(status, content=json.dumps(document).encode(), headers=headers)


class Pieces(httpx.SyncByteStream):
    """A body in pieces of ``size`` bytes, which breaks after ``breaks`` of them."""

    def __init__(self, body: bytes, size: int, breaks: int | None = None) -> None:
        self.body, self.size, self.breaks = body, size, breaks

    def __iter__(self) -> Iterator[bytes]:
        for number, begin in enumerate(range(0, len(self.body), self.size)):
            if number == self.breaks:
                raise httpx.ReadError("the connection broke")
            yield self.body[begin : begin + self.size]


class UploadServer:
    """Takes one upload. Every request counts; those numbered in ``breaks`` lose their answer, ``loses`` the request."""

    def __init__(self, breaks: set[int] = frozenset(), loses: set[int] = frozenset()) -> None:  # type: ignore[assignment]
        self.breaks, self.loses = breaks, loses
        self.received = b""
        self.about: dict[str, Any] = {}
        self.requests: list[str] = []
        self.finished = 0

    def __call__(self, request: httpx.Request) -> httpx.Response:
        self.requests.append(f"{request.method} {request.url.path}")
        number = len(self.requests)
        if number in self.loses:
            raise httpx.ConnectError("refused")
        answer = self._answer(request)
        if number in self.breaks:
            raise httpx.ReadError("broke")
        return answer

    def _answer(self, request: httpx.Request) -> httpx.Response:
        if request.method == "POST" and request.url.path == "/v1/uploads":
            self.about = json.loads(request.content)
        elif request.method == "PATCH":
            if int(request.headers["Upload-Offset"]) != len(self.received):
                return problem(409, "The chunk begins elsewhere.", offset=len(self.received))
            self.received += request.content
        elif request.url.path.endswith("/finish"):
            self.finished += 1
        sha256 = hashlib.sha256(self.received).hexdigest()
        return httpx.Response(200, json={"id": "up1", "offset": len(self.received), "sha256": sha256, "state": "open"})


class FileServer:
    """Hands out files by range. ``breaks``: after how many pieces of 1000 bytes each answer breaks, in turn."""

    def __init__(self, files: dict[str, bytes], breaks: list[int | None] | None = None) -> None:
        self.files, self.breaks = files, list(breaks or [])
        self.ranges: list[str | None] = []

    def __call__(self, request: httpx.Request) -> httpx.Response:
        path = request.url.path.removeprefix("/v1/jobs/j1/files")
        if not path:
            listed = [
                {"path": name, "sha256": hashlib.sha256(body).hexdigest(), "bytes": len(body)}
                for name, body in self.files.items()
            ]
            return httpx.Response(200, json={"files": listed})
        body, asked = self.files[path[1:]], request.headers.get("Range")
        self.ranges.append(asked)
        breaks = self.breaks.pop(0) if self.breaks else None
        if asked is None or request.headers.get("If-Range") != f'"{hashlib.sha256(body).hexdigest()}"':
            return httpx.Response(200, stream=Pieces(body, 1000, breaks))
        begin = int(asked.removeprefix("bytes=").removesuffix("-"))
        headers = {"Content-Range": f"bytes {begin}-{len(body) - 1}/{len(body)}"}
        return httpx.Response(206, headers=headers, stream=Pieces(body[begin:], 1000, breaks))
