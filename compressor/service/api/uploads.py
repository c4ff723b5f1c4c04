"""Uploads: weights, arrays and images, in chunks that can be gone on with."""

from __future__ import annotations

import io
from typing import Annotated

from fastapi import APIRouter, Header, Path, Query, Request
from starlette.responses import JSONResponse, Response

from compressor.service.access.principals import project_of
from compressor.service.api import examples
from compressor.service.api.answer_schemas import Upload, UploadList
from compressor.service.api.bodies import FieldError, json_of, pieces, require_room
from compressor.service.api.describing import answer, answers, binary, body
from compressor.service.api.documents import upload_document
from compressor.service.api.projects import AskedProject, Caller, seen_project
from compressor.service.api.schemas import NewUpload
from compressor.service.api.threads import in_thread
from compressor.service.errors import OffsetError
from compressor.service.records import UploadRecord
from compressor.service.services import Services

router = APIRouter(tags=["uploads"])

UploadId = Annotated[str, Path(max_length=40, examples=[examples.UPLOAD_ID])]


@router.post(
    "/uploads",
    status_code=201,
    summary="Announce a file",
    openapi_extra=body(examples.UPLOAD_NEW, NewUpload),
    responses={**answer(201, "Send chunks to it.", examples.UPLOAD, Upload), **answers(413, 422, 507)},
)
async def begin(request: Request, principal: Caller, project: AskedProject = None) -> Response:
    """Kinds: `weights` (safetensors), `arrays` (npz), `images` (a zip of folders, one per class)."""
    services: Services = request.app.state.services
    asked = await json_of(request, NewUpload)
    record = await in_thread(
        services.uploads.begin,
        project_of(principal, project),
        asked.name,
        asked.kind,
        asked.bytes,
        asked.sha256,
        submitted_by=principal.who,
    )
    return _said(record, 201)


@router.get(
    "/uploads",
    summary="List uploads, the newest first",
    responses={**answer(200, "Uploads.", {"uploads": [examples.UPLOAD]}, UploadList), **answers(404)},
)
def list_uploads(
    request: Request,
    principal: Caller,
    project: AskedProject = None,
    limit: Annotated[int, Query(ge=1, le=500)] = 100,
) -> Response:
    """Those of the key's project."""
    services: Services = request.app.state.services
    found = services.uploads.list(seen_project(principal, project), limit)
    return JSONResponse({"uploads": [upload_document(each) for each in found]})


@router.head("/uploads/{upload_id}", include_in_schema=False)
@router.get(
    "/uploads/{upload_id}",
    summary="How far an upload is",
    responses={
        **answer(200, "The upload; `Upload-Offset` has the offset, too.", examples.UPLOAD, Upload),
        **answers(404),
    },
)
def get_upload(request: Request, upload_id: UploadId, principal: Caller) -> Response:
    """The next chunk begins at `offset`."""
    services: Services = request.app.state.services
    return _said(services.uploads.get(upload_id, principal.project))


@router.patch(
    "/uploads/{upload_id}",
    summary="Send a chunk",
    openapi_extra=binary("application/offset+octet-stream"),
    responses={
        **answer(200, "What is there now.", {**examples.UPLOAD, "offset": 524_288}, Upload),
        **answers(404, 409, 413),
    },
)
async def append(
    request: Request,
    upload_id: UploadId,
    principal: Caller,
    upload_offset: Annotated[str, Header(max_length=20, description="Where the chunk begins.", examples=["0"])],
) -> Response:
    """Where the connection breaks, what arrived stays: ask for the offset and go on there."""
    services: Services = request.app.state.services
    if not upload_offset.isascii() or not upload_offset.isdigit():
        raise FieldError("The header Upload-Offset must be a number of bytes.", "Upload-Offset")
    record = await in_thread(services.uploads.get_open, upload_id, principal.project)
    offset = int(upload_offset)
    if offset != record.received:
        raise OffsetError(f"The next chunk of this upload begins at {record.received}, not {offset}.", record.received)
    room = max(0, record.bytes - record.received)
    require_room(request, room)
    async for piece in pieces(request, room):
        stream = io.BytesIO(piece)
        record = await in_thread(services.uploads.append, upload_id, offset, stream, principal.project)
        offset = record.received
    return _said(record)


@router.post(
    "/uploads/{upload_id}/finish",
    summary="Check a file that has been sent",
    responses={
        **answer(200, "It can be used now.", {**examples.UPLOAD, "state": "done"}, Upload),
        **answers(404, 409, 422),
    },
)
def finish(request: Request, upload_id: UploadId, principal: Caller) -> Response:
    """What is no file of its kind, or has another hash, is refused, with the reason."""
    services: Services = request.app.state.services
    return _said(services.uploads.finish(upload_id, principal.project))


@router.delete("/uploads/{upload_id}", status_code=204, summary="Drop an upload", responses=answers(404, 409))
def delete(request: Request, upload_id: UploadId, principal: Caller) -> Response:
    """Not while a job needs it."""
    services: Services = request.app.state.services
    services.uploads.delete(upload_id, principal.project)
    return Response(status_code=204)


def _said(record: UploadRecord, status: int = 200) -> Response:
    headers = {"Upload-Offset": str(record.received), "Upload-Length": str(record.bytes), "Cache-Control": "no-store"}
    if status == 201:
        headers["Location"] = f"/v1/uploads/{record.id}"
    return JSONResponse(upload_document(record), status, headers=headers)
