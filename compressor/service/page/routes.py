"""The page's routes, as one router. Places with fixed names come before those with a job's id."""

from __future__ import annotations

from fastapi import APIRouter, Request
from starlette.responses import Response

from compressor.service.errors import NotFoundError
from compressor.service.page.assets import assets
from compressor.service.page.views import access, actions, compare, devices, front, job, listing, submit, uploads

_YEAR = 365 * 24 * 3600

static = APIRouter(include_in_schema=False)


@static.get("/static/{name:path}")
def asset(request: Request, name: str) -> Response:
    """A static file. Its address has its checksum, so that it may be kept for good."""
    found = assets().get(name)
    if found is None:
        raise NotFoundError(f"There is no file {name[:80]!r}; load the page again, which names those there are.")
    tag = f'"{found.sha256[:32]}"'
    lasting = "v" in request.query_params
    headers = {"ETag": tag, "Cache-Control": f"public, max-age={_YEAR}, immutable" if lasting else "no-cache"}
    if request.headers.get("if-none-match") == tag:
        return Response(status_code=304, headers=headers)
    return Response(found.content, media_type=found.type, headers=headers)


@static.get("/favicon.ico")
def icon(request: Request) -> Response:
    """What browsers ask for by themselves."""
    return asset(request, "icon.svg")


router = APIRouter(include_in_schema=False)
for part in (static, access.router, listing.router, submit.router, compare.router, devices.router, uploads.router):
    router.include_router(part)
for part in (front.router, job.router, actions.router):
    router.include_router(part)
