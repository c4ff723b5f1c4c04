"""Whether the server lives, and whether it can do anything."""

from __future__ import annotations

from fastapi import APIRouter, Request
from starlette.responses import JSONResponse, Response

from compressor.service.api.answer_schemas import Status
from compressor.service.api.describing import answer, answers
from compressor.service.api.threads import in_thread
from compressor.service.services import Services
from compressor.storage.version import VERSION

router = APIRouter(tags=["operations"])


@router.get(
    "/healthz",
    summary="Whether the process lives",
    responses=answer(200, "It does.", {"status": "ok", "version": "0.1.0"}, Status),
)
async def healthz() -> Response:
    """Asks nothing else: restart a server that does not answer this."""
    return JSONResponse({"status": "ok", "version": VERSION})


@router.get(
    "/readyz",
    summary="Whether the database and the artefacts answer",
    responses={**answer(200, "They do.", {"status": "ok"}, Status), **answers()},
)
async def readyz(request: Request) -> Response:
    """503 while one is away, or while the server stops: send it no requests then. It comes back by itself."""
    services: Services = request.app.state.services
    if request.app.state.closing.is_set():
        return JSONResponse({"status": "stopping"}, 503)
    await in_thread(services.check)
    return JSONResponse({"status": "ok"})
