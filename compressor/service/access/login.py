"""Logging in on the page with a key, and out again."""

from __future__ import annotations

import re
from urllib.parse import parse_qs, quote

from fastapi import APIRouter, Request
from starlette.concurrency import run_in_threadpool
from starlette.responses import RedirectResponse, Response

from compressor.service.access.access import Access
from compressor.service.access.csrf import FORM_BYTES
from compressor.service.access.errors import MediaTypeError
from compressor.service.access.hosts import content_type
from compressor.service.access.sessions import LIFETIME
from compressor.service.errors import TooLargeError, TooManyError, UnauthorizedError

COOKIE = "compressor_session"
#: A path of this server: no other host after ``//`` or ``/\\``, no line's end.
_HERE = re.compile(r"/(?![/\\])[^\\\x00-\x20\x7f]*")

router = APIRouter(include_in_schema=False)


def access_of(request: Request) -> Access:
    """The app's access."""
    found: Access = request.app.state.access
    return found


def place_after(wanted: str | None) -> str:
    """Where to go after logging in: a path of this server, whatever the link said."""
    return wanted if wanted and _HERE.fullmatch(wanted) else "/"


@router.post("/login")
async def log_in(request: Request) -> Response:
    """Open a session with the form's ``key``, and go to ``next``."""
    if content_type(request.headers) != "application/x-www-form-urlencoded":
        raise MediaTypeError("The key is sent by the form of the login page.")
    body = b""
    async for chunk in request.stream():
        body += chunk
        if len(body) > FORM_BYTES:
            raise TooLargeError("This form is too large.")
    fields = parse_qs(body.decode("utf-8", "replace"), max_num_fields=10)
    key, place = fields.get("key", [""])[0].strip(), place_after(fields.get("next", ["/"])[0])
    access, address = access_of(request), request.client.host if request.client else "unknown"
    try:
        cookie = await run_in_threadpool(_open, access, key, address)
    except UnauthorizedError:
        return _again(place, "1")
    except TooManyError:
        return _again(place, "wait")
    response = RedirectResponse(place, status_code=303)
    response.set_cookie(
        COOKIE,
        cookie,
        max_age=int(LIFETIME.total_seconds()),
        httponly=True,
        samesite="lax",
        secure=request.scope["scheme"] == "https",
        path="/",
    )
    return response


@router.post("/logout")
async def log_out(request: Request) -> Response:
    """End the session."""
    access, principal = access_of(request), request.state.principal
    if cookie := request.cookies.get(COOKIE):
        await run_in_threadpool(access.sessions.close, cookie)
        await run_in_threadpool(
            access.audit.record, principal.who, "session.close", principal.key_id, principal.project
        )
    response = RedirectResponse("/login", status_code=303)
    response.delete_cookie(COOKIE, path="/")
    return response


def _open(access: Access, key: str, address: str) -> str:
    principal = access.check_key(key, address)
    cookie = access.sessions.open(principal)
    details = {"address": address}
    access.audit.record(principal.who, "session.open", principal.key_id, principal.project, details)
    return cookie


def _again(place: str, why: str) -> Response:
    return RedirectResponse(f"/login?failed={why}&next={quote(place, safe='')}", status_code=303)
