"""Files of jobs: listed, and downloaded in parts or whole."""

from __future__ import annotations

import mimetypes
from collections.abc import AsyncIterator
from typing import Annotated, BinaryIO, Literal
from urllib.parse import quote

from fastapi import APIRouter, Path, Query, Request
from starlette.responses import JSONResponse, Response, StreamingResponse

from compressor.service.api import examples
from compressor.service.api.answer_schemas import FileList
from compressor.service.api.costs import REPORT
from compressor.service.api.describing import answer, answers
from compressor.service.api.documents import file_document
from compressor.service.api.jobs import JobId
from compressor.service.api.problems import problem_response
from compressor.service.api.projects import Caller
from compressor.service.api.ranges import UnsatisfiableError, names_tag, read_range
from compressor.service.api.threads import in_thread
from compressor.service.errors import NotFoundError
from compressor.service.records import FileRecord
from compressor.service.services import Services

router = APIRouter(tags=["files"])

FilePath = Annotated[str, Path(examples=["model.onnx"], description="As the list of files has it.")]

PIECE = 256 << 10
PAGE = "report.html"
FRONT = ("front.json", "front.html")
"""What a sweep has instead of a report, as a document and as a page."""
# What jobs wrote is shown as what it is to nobody's scripts: without an origin, and with no scripts at all.
_SEALED = "sandbox; default-src 'none'; style-src 'unsafe-inline'; img-src data:; frame-ancestors 'self'"
_SHOWN = {".json": "application/json", ".jsonl": "application/jsonl", ".yaml": "application/yaml", ".txt": "text/plain"}


@router.get(
    "/jobs/{job_id}/files",
    summary="List a job's files",
    responses={**answer(200, "Its files by path.", examples.FILES_EXAMPLE, FileList), **answers(404)},
)
def list_files(request: Request, job_id: JobId, principal: Caller) -> Response:
    """As its worker last left them; those of a running job may change."""
    services: Services = request.app.state.services
    job = services.jobs.get(job_id, principal.project)
    found = [file for file in services.files.list(job.id) if not is_hidden(file.path)]
    return JSONResponse({"files": [file_document(file) for file in found]})


@router.head("/jobs/{job_id}/files/{path:path}", include_in_schema=False)
@router.get(
    "/jobs/{job_id}/files/{path:path}",
    summary="Download a file",
    response_class=StreamingResponse,
    responses={
        200: {"description": "The file.", "content": {"application/octet-stream": examples.BYTES}},
        206: {"description": "The part that `Range` names."},
        304: {"description": "It is the one that `If-None-Match` names."},
        **answers(404, 412, 416),
    },
)
async def get_file(request: Request, job_id: JobId, path: FilePath, principal: Caller) -> Response:
    """`ETag` is its SHA-256. `Range` and `If-Range` work, so that a download that broke off goes on."""
    services: Services = request.app.state.services

    def found() -> FileRecord:
        job = services.jobs.get(job_id, principal.project)
        if is_hidden(path):
            raise NotFoundError(f"There is no file {path[:100]!r} in this job; GET /v1/jobs/{job_id}/files lists them.")
        return services.files.get(job.id, path)

    file = await in_thread(found)
    return await send_file(request, file, attachment=True)


@router.head("/jobs/{job_id}/report", include_in_schema=False)
@router.get(
    "/jobs/{job_id}/report",
    summary="A job's report",
    responses={
        200: {
            "description": "The report.",
            "content": {
                "application/json": {"schema": {"type": "object"}, "example": examples.REPORT_EXAMPLE},
                "text/html": {"schema": {"type": "string"}, "example": "<!doctype html>..."},
            },
        },
        **answers(404),
    },
)
async def report(
    request: Request,
    job_id: JobId,
    principal: Caller,
    format: Annotated[Literal["json", "html"], Query(description="The document, or the page.")] = "json",
) -> Response:
    """As `report.json` and `report.html` in the job's folder have it; of a sweep its front, `front.json`."""
    services: Services = request.app.state.services

    def found() -> FileRecord:
        job = services.jobs.get(job_id, principal.project)
        reports = (REPORT, PAGE) if job.kind != "sweep" else FRONT
        name = reports[0] if format == "json" else reports[1]
        try:
            return services.files.get(job.id, name)
        except NotFoundError:
            raise NotFoundError(f"The job {job.id} is {job.state} and has no report; it comes at its end.") from None

    return await send_file(request, await in_thread(found), attachment=False)


def is_hidden(path: str) -> bool:
    """Whether a part of a path begins with a dot, or the path is none: what a job keeps for itself."""
    return any(not part or part.startswith(".") for part in path.split("/")) or "\\" in path


async def send_file(request: Request, file: FileRecord, *, attachment: bool) -> Response:
    """A file, or the part of it that is asked for. Only ``report.html`` goes out as a page, sealed."""
    services: Services = request.app.state.services
    etag = f'"{file.sha256}"'
    headers = {"ETag": etag, "Accept-Ranges": "bytes", "Cache-Control": "private, no-cache"}
    match = request.headers.get("if-match")
    if match is not None and not names_tag(match, etag, weak=False):
        return problem_response(412, "The file is another by now than the one that If-Match names; fetch it anew.")
    if names_tag(request.headers.get("if-none-match"), etag, weak=True):
        return Response(status_code=304, headers=headers)
    name = file.path.rpartition("/")[2]
    media_type = _media_type(name)
    if not attachment and name in (PAGE, FRONT[1]):
        media_type = "text/html; charset=utf-8"
    headers["Content-Security-Policy"] = _SEALED
    headers["X-Content-Type-Options"] = "nosniff"
    if attachment:
        headers["Content-Disposition"] = f"attachment; filename*=UTF-8''{quote(name, safe='')}"
    asked = request.headers.get("range")
    if (condition := request.headers.get("if-range")) is not None and condition.strip() != etag:
        asked = None
    try:
        part = read_range(asked, file.bytes)
    except UnsatisfiableError:
        told = {"Content-Range": f"bytes */{file.bytes}"}
        return problem_response(416, f"The file has {file.bytes} bytes, and nothing of that range.", headers=told)
    first, end = part or (0, file.bytes)
    status = 206 if part else 200
    if part:
        headers["Content-Range"] = f"bytes {first}-{end - 1}/{file.bytes}"
    headers["Content-Length"] = str(end - first)
    if request.method == "HEAD":
        return Response(status_code=status, headers=headers, media_type=media_type)
    stream = await in_thread(services.blobs.open, file.sha256, first)
    return StreamingResponse(_read(stream, end - first), status, headers=headers, media_type=media_type)


async def _read(stream: BinaryIO, count: int) -> AsyncIterator[bytes]:
    """``count`` bytes of a stream in pieces; a thread is taken for each piece, not for the whole."""
    try:
        while count:
            piece = await in_thread(stream.read, min(PIECE, count))
            if not piece:
                raise OSError("a content of the store is shorter than it was")  # the client sees the download break off
            count -= len(piece)
            yield piece
    finally:
        stream.close()


def _media_type(name: str) -> str:
    ending = "." + name.rpartition(".")[2].lower()
    if ending in _SHOWN:
        return _SHOWN[ending]
    guessed = mimetypes.guess_type(name)[0] or ""
    return guessed if guessed.startswith("image/") and "svg" not in guessed else "application/octet-stream"
