"""HEAD is answered wherever GET is, with the same status and headers (RFC 9110, 9.3.2)."""

from __future__ import annotations

import anyio
from starlette.routing import Match
from starlette.types import ASGIApp, Message, Receive, Scope, Send


class Heads:
    """ASGI middleware around the routes. Routes that take HEAD themselves, since their GET is dear, get it."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["method"] != "HEAD" or _takes(scope):
            await self._app(scope, receive, send)
            return
        asked = {**scope, "method": "GET"}
        with anyio.CancelScope() as route:

            async def sent(message: Message) -> None:
                if message["type"] != "http.response.start":
                    return
                scope.update({**asked, "method": "HEAD"})  # whoever is around this reads which route was met
                await send(message)
                await send({"type": "http.response.body", "body": b""})
                route.cancel()  # else a stream would go on for nobody

            await self._app(asked, receive, sent)


def _takes(scope: Scope) -> bool:
    return any(route.matches(scope)[0] is Match.FULL for route in scope["app"].routes)
