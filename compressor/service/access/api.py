"""``GET /v1/audit``: the audit log, for admins."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query, Request

from compressor.service.access.login import access_of
from compressor.service.access.principals import Principal, principal_of, require
from compressor.service.api import examples
from compressor.service.api.answer_schemas import AuditList
from compressor.service.api.describing import answer, answers

router = APIRouter(prefix="/v1", tags=["admin"])


@router.get(
    "/audit",
    summary="The audit log",
    response_model=AuditList,
    responses={**answer(200, "Entries, the latest first.", examples.AUDIT), **answers()},
)
def audit(
    request: Request,
    principal: Annotated[Principal, Depends(principal_of)],
    before: Annotated[int | None, Query(ge=1, le=2**63 - 1)] = None,
    limit: Annotated[int, Query(ge=1, le=1000)] = 100,
) -> dict[str, Any]:
    """Who did what, the latest first; of the key's project, or of all for a key of all projects."""
    require(principal, "admin")
    entries = access_of(request).audit.entries(project=principal.project, before=before, limit=limit)
    return {
        "entries": [
            {
                "id": entry.id,
                "time": entry.time.isoformat(),
                "who": entry.who,
                "action": entry.action,
                "subject": entry.subject,
                "project": entry.project,
                "details": dict(entry.details),
            }
            for entry in entries
        ]
    }
