"""What the buttons on a job's page do. Each goes back to the page that it was on."""

from __future__ import annotations

from fastapi import APIRouter
from starlette.responses import Response

from compressor.errors import UsageError
from compressor.options import read
from compressor.service.access.principals import require
from compressor.service.page.forms.job_form import PRIORITY
from compressor.service.page.gate import Asker, Parts, Posted, text_of, to

router = APIRouter(include_in_schema=False)


@router.post("/jobs/{job_id}/cancel")
def cancel(asker: Asker, services: Parts, job_id: str) -> Response:
    """Cancel a job: at once if it is queued, else its worker is asked to stop."""
    require(asker, "submit")
    services.jobs.cancel(job_id, asker.project)
    return to(f"/jobs/{job_id}")


@router.post("/jobs/{job_id}/retry")
def retry(asker: Asker, services: Parts, job_id: str) -> Response:
    """Queue a failed or cancelled job again."""
    require(asker, "submit")
    services.jobs.retry(job_id, asker.project)
    return to(f"/jobs/{job_id}")


@router.post("/jobs/{job_id}/priority")
def priority(asker: Asker, services: Parts, job_id: str, form: Posted) -> Response:
    """Change how early a job is taken."""
    require(asker, "submit")
    services.jobs.set_priority(job_id, read("Priority", PRIORITY, text_of(form, "priority")), asker.project)
    return to(f"/jobs/{job_id}")


@router.post("/jobs/{job_id}/delete")
def delete(asker: Asker, services: Parts, job_id: str, form: Posted) -> Response:
    """Delete an ended job with its files, where the box was checked that says so."""
    require(asker, "submit")
    if text_of(form, "sure") != "yes":
        raise UsageError("Check the box that says that the files are to go, too; nothing was deleted.")
    services.jobs.delete(job_id, asker.project)
    return to("/")
