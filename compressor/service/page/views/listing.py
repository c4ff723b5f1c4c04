"""``/``: the jobs, the newest first."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from typing import Annotated, Any
from urllib.parse import urlencode

from fastapi import APIRouter, Query, Request
from starlette.responses import Response

from compressor.service.api.targets import Waiting
from compressor.service.page.gate import Asker, Parts, page
from compressor.service.records import STATES, JobSummary

router = APIRouter(include_in_schema=False)
PER_PAGE = 50
Text = Annotated[str, Query(max_length=200)]


@router.get("/")
def jobs(request: Request, asker: Asker, services: Parts, q: Text = "", before: Text = "") -> Response:
    """The list, and the form that filters it."""
    return page(request, "jobs.html", **_listed(request, asker, services, q, before))


@router.get("/jobs/table")
def table(
    request: Request,
    asker: Asker,
    services: Parts,
    q: Text = "",
    before: Text = "",
    seen: Text = "",
) -> Response:
    """The list alone, for a page that keeps itself up to date; nothing if it shows what ``seen`` says."""
    found = _listed(request, asker, services, q, before)
    if seen == found["version"]:
        return Response(status_code=204)
    return page(request, "jobs_table.html", **found)


def _listed(request: Request, asker: Asker, services: Parts, query: str, before: str) -> dict[str, Any]:
    """What the list shows."""
    states = request.query_params.getlist("state")
    wanted = [state for state in STATES if state in states]
    rows = services.jobs.list(asker.project, wanted, query.strip(), before or None, PER_PAGE + 1)
    more = len(rows) > PER_PAGE
    waiting = Waiting(request.app)
    rows = [replace(row, waiting_for=waiting.of(row)) for row in rows[:PER_PAGE]]
    counts = services.jobs.counts(asker.project)
    asked = [*(("state", state) for state in wanted), *((("q", query.strip()),) if query.strip() else ())]
    return {
        "rows": rows,
        "counts": counts,
        "wanted": wanted,
        "query": query.strip(),
        "before": before,
        "several_projects": len({row.project for row in rows}) > 1,
        "older": urlencode([*asked, ("before", rows[-1].id)]) if more else "",
        "newest": urlencode(asked),
        "here": urlencode([*asked, *((("before", before),) if before else ())]),
        "version": _version(rows, counts),
    }


def _version(rows: list[JobSummary], counts: dict[str, int]) -> str:
    """A mark of what the list shows: the same as long as nothing of it changes."""
    shown = [
        (row.id, row.state, row.stage, row.done, row.total, row.waiting_for, row.priority, row.cancel_requested)
        for row in rows
    ]
    return hashlib.sha256(repr((shown, sorted(counts.items()))).encode()).hexdigest()[:16]
