"""Contents by their SHA-256, as workers send and fetch them."""

from __future__ import annotations

import io
from typing import Annotated

from fastapi import APIRouter, Header, Request
from starlette.responses import JSONResponse, Response, StreamingResponse

from compressor.service.access.principals import require
from compressor.service.api import examples
from compressor.service.api.answer_schemas import Stored
from compressor.service.api.bodies import Body
from compressor.service.api.describing import Sha256, answer, answers, binary
from compressor.service.api.files import send_file
from compressor.service.api.projects import Caller
from compressor.service.api.threads import in_body_thread, in_thread
from compressor.service.errors import NotFoundError
from compressor.service.records import FileRecord
from compressor.service.services import Services

router = APIRouter(prefix="/work/blobs", tags=["workers"])

_BUFFER = 1 << 20


@router.put(
    "/{sha256}",
    status_code=201,
    summary="Send a content",
    openapi_extra=binary("application/octet-stream"),
    responses={
        **answer(201, "It is there, whole.", examples.STORED, Stored),
        **answers(413, 422, 507),
    },
)
async def put(request: Request, sha256: Sha256, principal: Caller) -> Response:
    """Stored only if it has that hash; what breaks off leaves nothing."""
    require(principal, "agent")
    services: Services = request.app.state.services
    limit = services.settings.upload_bytes
    stream = io.BufferedReader(Body(request, limit), _BUFFER)
    found, size = await in_body_thread(request, services.blobs.put, stream, sha256, limit)
    return JSONResponse({"sha256": found, "bytes": size}, 201)


@router.head("/{sha256}", include_in_schema=False)
@router.get(
    "/{sha256}",
    summary="Fetch a content",
    response_class=StreamingResponse,
    responses={
        200: {"description": "The content.", "content": {"application/octet-stream": examples.BYTES}},
        206: {"description": "The part that `Range` names."},
        **answers(404, 416),
    },
)
async def get(
    request: Request,
    sha256: Sha256,
    principal: Caller,
    x_lease_token: Annotated[str, Header(max_length=200, description="Of a job that has the content.")] = "",
) -> Response:
    """Only for the worker that has a job with it. `HEAD` asks whether it is there, and keeps it from being collected
    for a day; to a key of one project it says so of that worker's contents alone."""
    require(principal, "agent")
    services: Services = request.app.state.services

    def found() -> FileRecord:
        asks = request.method == "HEAD" and principal.project is None
        if not asks and not services.files.may_read(x_lease_token, sha256):
            raise NotFoundError("No job of this lease has such a content.")
        services.blobs.has(sha256)
        return FileRecord(sha256, sha256, services.blobs.size(sha256))

    return await send_file(request, await in_thread(found), attachment=True)
