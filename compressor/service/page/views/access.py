"""``/login`` and ``/keys``: who may come in. Logging in itself is of ``service.access``."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Query, Request
from starlette.responses import Response

from compressor.errors import UsageError
from compressor.service.access.access import Access
from compressor.service.access.principals import SCOPES, require
from compressor.service.errors import NotFoundError
from compressor.service.page.gate import Asker, Posted, page, text_of, to

router = APIRouter(include_in_schema=False)
_DEFAULTS = {"name": "", "project": "default", "scopes": ["read", "submit"]}


@router.get("/login")
def login(
    request: Request,
    place: Annotated[str, Query(alias="next", max_length=2000)] = "/",
    failed: Annotated[str, Query(max_length=20)] = "",
) -> Response:
    """The form that takes a key."""
    return page(request, "login.html", next=place, failed=bool(failed))


@router.get("/keys")
def keys(request: Request, asker: Asker) -> Response:
    """Keys by name, and a form that makes one."""
    require(asker, "admin")
    return _keys(request, asker)


@router.post("/keys")
def make(request: Request, asker: Asker, posted: Posted) -> Response:
    """Make a key, and show it this once."""
    require(asker, "admin")
    scopes = [each for each in posted.getlist("scope") if isinstance(each, str)]
    name, project = text_of(posted, "name"), text_of(posted, "project")
    typed = {"name": name, "project": project, "scopes": scopes}
    whose = asker.project if asker.project is not None else project or None
    try:
        _, secret = _access(request).keys.create(name, project=whose, scopes=scopes, by=asker.who)
    except UsageError as error:
        return _keys(request, asker, status=422, typed=typed, errors={"name": str(error)})
    return _keys(request, asker, secret=secret)


@router.post("/keys/{key_id}/revoke")
def revoke(request: Request, asker: Asker, key_id: str) -> Response:
    """Revoke a key; sessions that were opened with it end."""
    require(asker, "admin")
    access = _access(request)
    if all(key.id != key_id for key in access.keys.records(asker.project)):
        raise NotFoundError(f"There is no key {key_id!r} here; the list of keys has those that there are.")
    access.keys.revoke(key_id, by=asker.who)
    return to("/keys")


def _access(request: Request) -> Access:
    found: Access = request.app.state.access
    return found


def _keys(request: Request, asker: Asker, status: int = 200, **more: Any) -> Response:
    shown = {"typed": _DEFAULTS, "errors": {}, "secret": "", "scopes": SCOPES, **more}
    response = page(request, "keys.html", status, keys=_access(request).keys.records(asker.project), **shown)
    response.headers["Cache-Control"] = "no-store"
    return response
