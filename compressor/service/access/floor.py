"""The least that a request needs, whatever its route asks for itself: what a new route forgets is refused here."""

from __future__ import annotations

import re

from compressor.service.access.hosts import SAFE_METHODS

#: Answered to everybody: whether the server lives, and what is needed to log in. ``/static`` holds no data.
PUBLIC = frozenset({"/healthz", "/readyz", "/v1/healthz", "/v1/readyz", "/login", "/favicon.ico"})
_AGENTS = re.compile(r"/v1/(?:work(?:/.*)?|devices/[^/]+/(?:poll|results)(?:/.*)?)")
_ADMINS = re.compile(r"(?:/v1)?/(?:audit|keys)(?:/.*)?")


def is_public(path: str, *, open_metrics: bool = False) -> bool:
    """Whether a path is answered without a key."""
    return path in PUBLIC or path.startswith("/static/") or (open_metrics and path == "/metrics")


def least_scope(method: str, path: str) -> str | None:
    """The scope that a request needs at least; None: any."""
    if _AGENTS.fullmatch(path):
        return "agent"
    if _ADMINS.fullmatch(path):
        return "admin"
    if path == "/logout":
        return None
    return "read" if method in SAFE_METHODS else "submit"


def is_api(path: str) -> bool:
    """Whether a path is the API's, which programs speak to; the others are the page's, for browsers."""
    return path == "/v1" or path.startswith("/v1/") or path in ("/metrics", "/healthz", "/readyz")
