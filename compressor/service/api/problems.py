"""Errors as problem documents (RFC 9457), with the exit classes that the command line has."""

from __future__ import annotations

import errno
import json
import logging
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Match

from compressor.errors import CompressorError
from compressor.jobs.recipes.read import RecipeError
from compressor.printable import printable
from compressor.service.errors import ServiceError

MEDIA_TYPE = "application/problem+json"
_LONGEST = 2000
_CLASSES = {
    2: ("usage", "The request cannot be used"),
    3: ("unreachable", "A budget is unreachable"),
    4: ("unsupported", "The model is not supported"),
    5: ("verification", "The result could not be verified"),
}
"""By exit class of the command line: a name, and a title."""
_UNSAFE = {ord("<"): "\\u003c", ord(">"): "\\u003e", ord("&"): "\\u0026"}

logger = logging.getLogger("compressor.service")


def problem_response(
    status: int,
    detail: str,
    *,
    kind: str | None = None,
    title: str | None = None,
    headers: Mapping[str, str] | None = None,
    **more: Any,
) -> Response:
    """A problem document. What is None in ``more`` is left out."""
    said = HTTPStatus(status)
    document = {
        "type": problem_type(said, kind),
        "title": title or said.phrase,
        "status": status,
        "detail": printable(detail)[:_LONGEST],
        **{name: value for name, value in more.items() if value is not None},
    }
    # Whoever shows this in a page by mistake shows no markup.
    text = json.dumps(document, ensure_ascii=True).translate(_UNSAFE)
    return Response(
        text, status, headers={"X-Content-Type-Options": "nosniff", **(headers or {})}, media_type=MEDIA_TYPE
    )


def problem_type(status: HTTPStatus, kind: str | None = None) -> str:
    """The name of a kind of problem; of its status, where it is of none."""
    return f"urn:compressor:problem:{kind or status.name.lower().replace('_', '-')}"


def problem_of(error: CompressorError) -> Response:
    """What is answered for an error that the program raises on purpose."""
    exit_code = error.exit_code if error.exit_code in _CLASSES else None
    kind, title = _CLASSES[exit_code] if exit_code is not None else (None, None)
    status = getattr(error, "status", 422 if exit_code is not None else 500)
    headers: dict[str, str] = {}
    if (seconds := getattr(error, "retry_after", None)) is not None:
        headers["Retry-After"] = str(seconds)
    if status == 401:
        headers["WWW-Authenticate"] = "Bearer"
    more: dict[str, Any] = {"exit_code": exit_code}
    if isinstance(error, RecipeError):
        more |= {"key": error.key[:200] if error.key else None, "line": error.line}
    for name in ("key", "offset", "missing"):  # of errors that have one
        more.setdefault(name, getattr(error, name, None))
    if (offset := more["offset"]) is not None:
        headers["Upload-Offset"] = str(offset)
    return problem_response(status, str(error), kind=kind, title=title, headers=headers, **more)


def install_handlers(app: FastAPI) -> None:
    """Make every error of the app a problem document. What nobody foresaw is the guard's, see ``unforeseen``."""
    app.add_exception_handler(CompressorError, _on_error)
    app.add_exception_handler(RequestValidationError, _on_invalid)
    app.add_exception_handler(HTTPException, _on_http)
    app.add_exception_handler(ClientDisconnect, _on_gone)
    app.add_exception_handler(OSError, _on_os)


async def _on_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, CompressorError)
    if not isinstance(error, ServiceError) and error.exit_code not in _CLASSES:
        logger.error("%s: %s", type(error).__name__, error, exc_info=error)
    return problem_of(error)


async def _on_invalid(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    first = error.errors()[0]
    place = [str(part) for part in first["loc"]]
    name = ".".join(place[1:]) or place[0]
    return problem_response(
        422, f"{name}: {first['msg']}.", kind=_CLASSES[2][0], title=_CLASSES[2][1], exit_code=2, key=name[:200]
    )


async def _on_http(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    detail = {404: "There is nothing here.", 405: "This cannot be done here with that method."}
    headers = dict(error.headers or {})
    if error.status_code == 405:
        headers["Allow"] = ", ".join(_methods(request))
    return problem_response(error.status_code, detail.get(error.status_code, str(error.detail)), headers=headers)


def _methods(request: Request) -> list[str]:
    """What may be done at the place that was asked for: of all its routes, where the first one alone would be named."""
    routes = request.app.routes
    found = {
        method
        for method in ("DELETE", "GET", "HEAD", "PATCH", "POST", "PUT")
        if any(route.matches({**request.scope, "method": method})[0] is Match.FULL for route in routes)
    }
    return sorted(found | ({"HEAD"} if "GET" in found else set()))  # see ``Heads``


async def _on_gone(request: Request, error: Exception) -> Response:
    return problem_response(400, "The body ended early; send it again.")


async def _on_os(request: Request, error: Exception) -> Response:
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return problem_response(507, "The server's disk is full; nothing was written.")
    return unforeseen(request.method, request.url.path, error)


def unforeseen(method: str, path: str, error: Exception) -> Response:
    """What is answered for an error that nobody foresaw; the log has all of it, the client hears nothing of it."""
    logger.error("%s %s failed: %s", method, path, error, exc_info=error)
    return problem_response(500, "Something went wrong on the server; its log says what.")
