"""How the guard refuses, and what headers every answer has."""

from __future__ import annotations

from urllib.parse import quote

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import RedirectResponse, Response
from starlette.types import Message, Scope

from compressor.service.access.floor import is_api
from compressor.service.api.problems import problem_of
from compressor.service.errors import ServiceError, UnauthorizedError

#: For what the page shows. No inline scripts: a name with HTML in it runs nothing, even where a template forgot this.
PAGE_POLICY = (
    "default-src 'self'; img-src 'self' data:; style-src 'self' 'unsafe-inline'; object-src 'none'; "
    "base-uri 'none'; form-action 'self'; frame-ancestors 'self'"
)
#: For the API's answers, files of jobs among them: opened in a browser, they run nothing and reach nothing here.
API_POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:; frame-ancestors 'self'; sandbox"


def refusal(scope: Scope, error: ServiceError) -> Response:
    """The answer to a request that is refused: a problem document; for a browser without a session, the login page."""
    headers = Headers(scope=scope)
    response = problem_of(error)
    if isinstance(error, UnauthorizedError) and not is_api(scope["path"]):
        query = f"?{scope['query_string'].decode('latin-1')}" if scope.get("query_string") else ""
        if "hx-request" in headers:  # htmx would put the login form into the middle of a page
            response.headers["HX-Redirect"] = "/login"
        elif scope["method"] in ("GET", "HEAD") and "text/html" in headers.get("accept", ""):
            return RedirectResponse(f"/login?next={quote(scope['path'] + query, safe='')}", status_code=303)
    if error.status in (408, 413):
        response.headers["Connection"] = "close"  # the rest of the body is not waited for
    return response


def secure(message: Message, scope: Scope) -> None:
    """Add what tells browsers to be careful, where the route has not said something itself."""
    headers = MutableHeaders(raw=message["headers"])
    headers.setdefault("X-Content-Type-Options", "nosniff")
    headers.setdefault("Referrer-Policy", "same-origin")
    headers.setdefault("X-Frame-Options", "SAMEORIGIN")
    headers.setdefault("Cross-Origin-Opener-Policy", "same-origin")
    headers.setdefault("Cross-Origin-Resource-Policy", "same-origin")
    headers.setdefault("Content-Security-Policy", API_POLICY if is_api(scope["path"]) else PAGE_POLICY)
    if not scope["path"].startswith("/static/"):
        headers.setdefault("Cache-Control", "private, no-cache")
