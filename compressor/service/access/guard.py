"""What every request passes before any route: from where, by whom, may they; and what is written down after it.

What is not allowed is refused, so a new route is closed before it says a word. What belongs to another project is
refused by the routes, which alone know whose things are.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TypeVar

import anyio
from starlette.datastructures import Headers
from starlette.requests import cookie_parser
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from compressor.service.access.access import Access
from compressor.service.access.answers import refusal, secure
from compressor.service.access.bodies import PATIENCE, Body
from compressor.service.access.csrf import check_csrf
from compressor.service.access.errors import MediaTypeError, SlowRequestError
from compressor.service.access.floor import is_api, is_public, least_scope
from compressor.service.access.hosts import SAFE_METHODS, check_host, check_origin, is_form
from compressor.service.access.login import COOKIE
from compressor.service.access.paths import check_path
from compressor.service.access.principals import Principal, require
from compressor.service.access.standing import Shown
from compressor.service.access.trail import Trail
from compressor.service.api.problems import unforeseen
from compressor.service.errors import DatabaseAwayError, ServiceError, TooLargeError, UnauthorizedError

T = TypeVar("T")


class Guard:
    """The ASGI middleware around everything.

    Args:
        app: What it guards.
        access: Who may what.
        patience: Seconds in which something of a body must come.
    """

    def __init__(self, app: ASGIApp, access: Access, patience: float = PATIENCE) -> None:
        self._app, self._access, self._patience = app, access, patience
        self._threads: anyio.CapacityLimiter | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        if scope["type"] != "http":
            await send({"type": "websocket.close", "code": 1008})  # there are none here
            return
        started = False

        async def answer(message: Message) -> None:
            nonlocal started
            if message["type"] == "http.response.start":
                started = True
                secure(message, scope)
            await send(message)

        try:
            headers = Headers(scope=scope)
            body = Body(headers, receive, self._patience)
            principal, rest = await self._admit(scope, headers, body)
        except ServiceError as error:
            await refusal(scope, error)(scope, receive, answer)
            return
        scope.setdefault("state", {})["principal"] = principal
        trail = Trail(scope, principal)

        async def written(message: Message) -> None:
            if (body.slow or body.large) and not started:
                return  # what the route makes of half a body is nobody's business
            if entry := trail.entry(message):
                await self._thread(partial(self._access.audit.record, **entry))
            await answer(message)

        try:
            await self._app(scope, rest, written)
        except Exception as error:
            if started:
                raise  # the connection breaks, so that nobody takes half an answer for a whole one
            if not (body.slow or body.large):
                await unforeseen(scope["method"], scope["path"], error)(scope, receive, answer)
                return
        if (body.slow or body.large) and not started:
            late = SlowRequestError("The rest of this request did not come.")
            refused = TooLargeError("This document is too large.") if body.large else late
            await refusal(scope, refused)(scope, receive, answer)

    async def _admit(self, scope: Scope, headers: Headers, body: Receive) -> tuple[Principal | None, Receive]:
        """Who asks, and what to read the body from; raises a ``ServiceError`` where the request is refused."""
        access, path, method = self._access, scope["path"], scope["method"]
        check_path(scope)
        user = access.proxies.see_through(scope)
        client = scope["client"][0] if scope.get("client") else None
        public = is_public(path, open_metrics=access.settings.open_metrics)
        closed = await self._closed(public)
        check_host(headers, client, keys_exist=closed, allowed=access.settings.allowed_hosts)
        check_origin(method, headers)
        if path.startswith("/v1/") and method not in SAFE_METHODS and is_form(headers):
            raise MediaTypeError("The API takes JSON: send it as Content-Type: application/json.")
        if public:
            return None, body
        cookie = cookie_parser("; ".join(headers.getlist("cookie"))).get(COOKIE)
        shown = Shown(bearer(headers), cookie, user)
        principal = await self._thread(partial(access.identify, shown, address=client or "unknown"))
        if principal is None:
            raise UnauthorizedError("This needs a key; send it as 'Authorization: Bearer KEY'.")
        scope.setdefault("state", {})["shown"] = shown
        # Programs on this machine have no token; other sites' pages, which have none either, cannot send JSON.
        is_program = principal.way == "local" and is_api(path)
        if method not in SAFE_METHODS and principal.csrf is not None and not is_program:
            body = await check_csrf(headers, body, principal.csrf)
        if (scope_needed := least_scope(method, path)) is not None:
            require(principal, scope_needed)
        return principal, body

    async def _closed(self, public: bool) -> bool:
        try:
            return self._access.keys.known_to_exist or await self._thread(self._access.is_closed)
        except DatabaseAwayError:
            if not public:
                raise
            return False  # /healthz is answered to this machine, whatever the database does

    async def _thread(self, function: Callable[[], T]) -> T:
        if self._threads is None:
            self._threads = anyio.CapacityLimiter(8)  # of its own: routes that wait keep nobody out
        return await anyio.to_thread.run_sync(function, limiter=self._threads)


def bearer(headers: Headers) -> str | None:
    """The key of a request.

    Raises:
        UnauthorizedError: There is something that is no key.
    """
    given = headers.getlist("authorization")
    if not given:
        return None
    kind, _, key = given[0].partition(" ")
    if len(given) > 1 or kind.lower() != "bearer" or not key.strip():
        raise UnauthorizedError("Send the key as 'Authorization: Bearer KEY'.")
    return key.strip()
