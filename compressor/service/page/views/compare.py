"""``/compare?job=&job=``: several jobs side by side."""

from __future__ import annotations

from fastapi import APIRouter, Request
from starlette.responses import Response

from compressor.errors import UsageError
from compressor.report import Report
from compressor.service.page.documents import load_report, paths
from compressor.service.page.gate import Asker, Parts, page
from compressor.service.page.pictures.marks import mark_of
from compressor.service.page.views.comparing import Compared, compared, cost_names, differences, picture
from compressor.service.records import JobRecord
from compressor.service.services import Services

router = APIRouter(include_in_schema=False)
MOST_JOBS = 12


@router.get("/compare")
def compare(request: Request, asker: Asker, services: Parts) -> Response:
    """The jobs that the address names; with fewer than two a form that chooses some."""
    ids = list(dict.fromkeys(request.query_params.getlist("job")))
    if len(ids) > MOST_JOBS:
        raise UsageError(f"At most {MOST_JOBS} jobs are compared at once, not {len(ids)}; choose fewer.")
    jobs = [services.jobs.get(job_id, asker.project) for job_id in ids]
    rows = [_row(services, index, job) for index, job in enumerate(jobs)]
    costs = cost_names(rows)
    asked = request.query_params.get("cost", "")
    cost = asked if asked in costs else (costs[0] if costs else "")
    others = [] if len(jobs) > 1 else services.jobs.list(asker.project, ["done"], limit=50)
    return page(
        request,
        "compare.html",
        rows=rows,
        costs=costs,
        cost=cost,
        picture=picture(rows, cost),
        differences=differences(jobs) if len(jobs) > 1 else [],
        others=[other for other in others if other.id not in ids],
    )


def _row(services: Services, index: int, job: JobRecord) -> Compared:
    report: Report | None = None
    missing = ""
    try:
        report = load_report(services.files, job.id, paths(services.files.list(job.id)))
    except UsageError as error:
        missing = str(error)
    return compared(job, report, mark_of(index), missing)
