"""What is around every route: a line in the log, the latency by route, and the job's id in whatever is logged."""

from __future__ import annotations

import logging
from typing import Any

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from compressor.service.logs import LOGGER, Stopwatch, current_job

logger = logging.getLogger(f"{LOGGER}.http")
_QUIET = (
    *("/healthz", "/readyz", "/metrics", "/v1/healthz", "/v1/readyz", "/static/{name:path}"),
    *("/v1/work/claim", "/v1/work/{job_id}/renew", "/v1/work/{job_id}/events", "/v1/work/{job_id}/snapshot"),
    *("/v1/work/blobs/{sha256}", "/v1/devices/{name}/poll"),
)
"""Asked again and again; said at DEBUG only, unless something is wrong."""
API_HEADER = (b"compressor-api", b"1")
"""Says which version of the API answers, so that an older client can say that it is too old."""
OTHER = "(none)"
"""The route of what meets none."""


class Around:
    """ASGI middleware; ``app.state.metrics`` gets the latency until the answer begins."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        watch = Stopwatch()
        token = current_job.set(None)
        status = 0

        async def sent(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                if scope["path"].startswith("/v1/"):
                    message["headers"] = [*message.get("headers", ()), API_HEADER]
                status = message["status"]
                self._done(scope, status, watch.seconds)
            await send(message)

        try:
            await self._app(scope, receive, sent)
        finally:
            current_job.reset(token)

    def _done(self, scope: Scope, status: int, seconds: float) -> None:
        route = route_of(scope)
        scope["app"].state.metrics.latency.labels(scope["method"], route, str(status)).observe(seconds)
        level = logging.DEBUG if route in _QUIET and status < 400 else logging.INFO
        if not logger.isEnabledFor(level):
            return
        said: dict[str, Any] = {"route": route, "status": status, "ms": round(1000 * seconds, 1)}
        said["who"] = getattr(scope.get("state", {}).get("principal"), "who", None)
        said["job"] = scope.get("path_params", {}).get("job_id")
        logger.log(level, "%s %s", scope["method"], scope["path"][:300], extra=said)


def route_of(scope: Scope) -> str:
    """The template of the route that was met, so that metrics have as many series as there are routes."""
    path = getattr(scope.get("route"), "path", None)
    if not isinstance(path, str):
        return OTHER
    # Versions of FastAPI differ in whether a route knows the prefix of the router that it is in.
    return f"/v1{path}" if scope["path"].startswith("/v1/") and not path.startswith("/v1/") else path
