"""``/uploads``: weights and data that jobs may name."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request
from starlette.datastructures import UploadFile
from starlette.responses import Response

from compressor.service.access.principals import Principal, project_of, require
from compressor.service.errors import QuotaError, RefusedError, TooLargeError
from compressor.service.page.gate import Asker, Parts, Posted, page, text_of, to
from compressor.service.records import UPLOAD_KINDS, UploadRecord
from compressor.service.services import Services

router = APIRouter(include_in_schema=False)
_SAID = {
    "weights": "Weights (.safetensors)",
    "arrays": "Arrays (.npz)",
    "images": "Images (.zip, a folder for each class)",
}


@router.get("/uploads")
def uploads(request: Request, asker: Asker, services: Parts) -> Response:
    """What was uploaded, and a form for more."""
    return page(request, "uploads.html", **_shown(asker, services))


@router.post("/uploads")
def upload(request: Request, asker: Asker, services: Parts, posted: Posted) -> Response:
    """Take one file."""
    require(asker, "submit")
    kind, file = text_of(posted, "kind"), posted.get("file")
    try:
        if not isinstance(file, UploadFile) or not file.filename:
            raise RefusedError("Choose a file.")
        add_upload(services, asker, project_of(asker, text_of(posted, "project") or None), file, kind)
    except (RefusedError, TooLargeError, QuotaError) as error:
        return page(request, "uploads.html", error.status, **_shown(asker, services, str(error), kind))
    return to("/uploads")


@router.post("/uploads/{upload_id}/delete")
def delete(asker: Asker, services: Parts, upload_id: str) -> Response:
    """Drop one. What a job under way needs stays."""
    require(asker, "submit")
    services.uploads.delete(upload_id, asker.project)
    return to("/uploads")


def add_upload(services: Services, asker: Principal, project: str, file: UploadFile, kind: str) -> UploadRecord:
    """Store a file of a form, checked by its content.

    Raises:
        RefusedError: it is not what it says. TooLargeError, QuotaError: it is too much.
    """
    if kind not in UPLOAD_KINDS:
        raise RefusedError(f"There is no kind of upload {kind[:40]!r}; choose from {', '.join(UPLOAD_KINDS)}.")
    name = (file.filename or "file").replace("\\", "/").rpartition("/")[2]
    begun = services.uploads.begin(project, name, kind, file.size or 0, submitted_by=asker.who)
    services.uploads.append(begun.id, 0, file.file, project)
    return services.uploads.finish(begun.id, project)


def kind_of_data(filename: str) -> str:
    """What a file of data is by its name; its content is checked later. Raises ``RefusedError`` for others."""
    for ending, kind in ((".npz", "arrays"), (".zip", "images")):
        if filename.lower().endswith(ending):
            return kind
    raise RefusedError(f"Data is an .npz of arrays or a .zip of images, not {filename[:80]!r}.")


def _shown(asker: Principal, services: Services, mistake: str = "", kind: str = "weights") -> dict[str, Any]:
    return {
        "uploads": services.uploads.list(asker.project),
        "kinds": list(_SAID.items()),
        "kind": kind,
        "mistake": mistake,
        "most_bytes": services.settings.upload_bytes,
    }
