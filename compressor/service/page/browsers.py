"""Errors as pages, whoever refuses: the guard, a route, or what no route answers. Programs get the problem document."""

from __future__ import annotations

import json
from typing import Any

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from compressor.service.access.floor import is_api
from compressor.service.api.problems import MEDIA_TYPE
from compressor.service.page.gate import page


class Browsers:
    """ASGI middleware around the guard."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or not _is_browser(scope):
            await self._app(scope, receive, send)
            return
        begun: Message | None = None
        body = b""

        async def sent(message: Message) -> None:
            nonlocal begun, body
            if message["type"] == "http.response.start":
                if Headers(raw=message["headers"]).get("content-type") != MEDIA_TYPE:
                    await send(message)
                else:
                    begun = message
                return
            if begun is None:
                await send(message)
                return
            body += message.get("body", b"")
            if message.get("more_body"):
                return
            text = _drawn(scope, begun, json.loads(body) if body else {})
            await send(begun)
            await send({"type": "http.response.body", "body": text})

        await self._app(scope, receive, sent)


def _is_browser(scope: Scope) -> bool:
    """Whether the answer will be read in a window of its own; what scripts of the page ask for will not."""
    headers = Headers(scope=scope)
    return not is_api(scope["path"]) and "text/html" in headers.get("accept", "") and "hx-request" not in headers


def _drawn(scope: Scope, begun: Message, problem: dict[str, Any]) -> bytes:
    """The page that says what a problem document says; the answer's headers become those of the page."""
    title, detail = str(problem.get("title", "")), str(problem.get("detail", ""))
    drawn = page(Request(scope), "problem.html", begun["status"], title=title, detail=detail, code=begun["status"])
    headers = MutableHeaders(raw=begun["headers"])
    for name in ("content-type", "content-length", "content-security-policy"):
        headers[name] = drawn.headers[name]
    return b"" if scope["method"] == "HEAD" else bytes(drawn.body)
