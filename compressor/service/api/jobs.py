"""Jobs over HTTP: submitted, listed, looked at, cancelled, tried again, deleted."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from fastapi import APIRouter, Header, Path, Query, Request
from starlette.responses import JSONResponse, Response

from compressor.service.access.principals import project_of
from compressor.service.api import examples
from compressor.service.api.bodies import json_of, whole_body
from compressor.service.api.costs import costs_of
from compressor.service.api.describing import answer, answers, body
from compressor.service.api.documents import job_document, whole_job_document
from compressor.service.api.projects import AskedProject, Caller, seen_project
from compressor.service.api.schemas import JobPage, Pick, Priority, WholeJob
from compressor.service.api.submitting import submit_pick, submit_recipe
from compressor.service.api.targets import Waiting
from compressor.service.api.threads import in_thread
from compressor.service.errors import RefusedError
from compressor.service.recipes import MOST_BYTES, read_body
from compressor.service.records import STATES, JobRecord
from compressor.service.services import Services

router = APIRouter(tags=["jobs"])

JobId = Annotated[str, Path(max_length=40, examples=[examples.JOB_ID])]
IdempotencyKey = Annotated[
    str | None, Header(max_length=200, description="The same key again is the same job: safe to repeat.")
]
_RECIPE_BODY: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "description": "A recipe, as `compress --config` reads it; a list of budgets makes it a sweep.",
        "content": {
            "application/json": {
                "schema": {"type": "object"},
                "examples": {"job": {"value": examples.RECIPE}, "sweep": {"value": examples.SWEEP}},
            },
            "application/yaml": {"schema": {"type": "string"}, "example": examples.RECIPE_YAML},
        },
    }
}


@router.post(
    "/jobs",
    status_code=201,
    summary="Submit a job",
    response_model=WholeJob,
    openapi_extra=_RECIPE_BODY,
    responses={
        **answer(200, "The job that the same Idempotency-Key made before.", examples.SUBMITTED, WholeJob),
        **answer(201, "Queued.", examples.SUBMITTED),
        **answers(409, 413, 422, 429, 507),
    },
)
async def submit(
    request: Request,
    principal: Caller,
    name: Annotated[str, Query(max_length=200, description="What lists call it.")] = "",
    priority: Annotated[int, Query(ge=-1000, le=1000, description="Higher ones are taken first.")] = 0,
    kind: Annotated[Literal["compress", "sweep"] | None, Query(description="Told by the budgets if left out.")] = None,
    project: AskedProject = None,
    idempotency_key: IdempotencyKey = None,
) -> Response:
    """The body is the recipe. What is wrong with it is said with its key, its line, and what to do."""
    data = await whole_body(request, MOST_BYTES)
    media_type = request.headers.get("content-type", "application/json")

    def submitted() -> Response:
        record = submit_recipe(
            request.app,
            read_body(data, media_type),
            project=project_of(principal, project),
            kind=kind,
            name=name,
            priority=priority,
            submitted_by=principal.who,
            idempotency_key=idempotency_key,
        )
        return _made(request, record)

    return await in_thread(submitted)


@router.get(
    "/jobs",
    summary="List jobs, the newest first",
    response_model=JobPage,
    responses={**answer(200, "A page of jobs.", examples.JOBS_EXAMPLE), **answers(404, 422)},
)
def list_jobs(
    request: Request,
    principal: Caller,
    state: Annotated[list[str] | None, Query(description="May be repeated, or several with commas.")] = None,
    project: AskedProject = None,
    q: Annotated[str, Query(max_length=200, description="Part of the name, start of the id, or who submitted.")] = "",
    before: Annotated[str | None, Query(pattern="^[0-9a-f]{20}$", description="`next` of the page before.")] = None,
    limit: Annotated[int, Query(ge=1, le=500)] = 50,
) -> Response:
    """Jobs of the key's project; of all where the key is for all."""
    services: Services = request.app.state.services
    states = [part for each in state or () for one in each.split(",") if (part := one.strip())]
    if strange := next((each for each in states if each not in STATES), None):
        raise RefusedError(f"There is no state {strange[:40]!r}; states are {', '.join(STATES)}.")
    found = services.jobs.list(seen_project(principal, project), states, q, before, limit)
    waiting = Waiting(request.app)
    jobs = [job_document(job) | {"waiting_for": waiting.of(job)} for job in found]
    return JSONResponse({"jobs": jobs, "next": found[-1].id if len(found) == limit else None})


@router.get(
    "/jobs/{job_id}",
    summary="Look at a job",
    response_model=WholeJob,
    responses={**answer(200, "All of the job.", examples.WHOLE_JOB), **answers(404)},
)
def get_job(request: Request, job_id: JobId, principal: Caller) -> Response:
    """State, stage, progress, what it waits for, why it failed, and what its network costs once that is decided."""
    services: Services = request.app.state.services
    return _whole(request, services.jobs.get(job_id, principal.project))


@router.post(
    "/jobs/{job_id}/cancel",
    summary="Cancel a job",
    response_model=WholeJob,
    responses={**answer(200, "Cancelled, or about to be.", examples.WHOLE_JOB), **answers(404, 409)},
)
def cancel(request: Request, job_id: JobId, principal: Caller) -> Response:
    """A queued job at once; the worker of a running one is told."""
    services: Services = request.app.state.services
    return _whole(request, services.jobs.cancel(job_id, principal.project))


@router.post(
    "/jobs/{job_id}/retry",
    summary="Try a failed or cancelled job again",
    response_model=WholeJob,
    responses={**answer(200, "Queued again.", examples.SUBMITTED), **answers(404, 409, 429)},
)
def retry(request: Request, job_id: JobId, principal: Caller) -> Response:
    """It goes on from its last stage."""
    services: Services = request.app.state.services
    return _whole(request, services.jobs.retry(job_id, principal.project))


@router.post(
    "/jobs/{job_id}/priority",
    summary="Move a job in the queue",
    response_model=WholeJob,
    openapi_extra=body({"priority": 10}, Priority),
    responses={**answer(200, "The job.", examples.SUBMITTED), **answers(404, 409, 422)},
)
async def set_priority(request: Request, job_id: JobId, principal: Caller) -> Response:
    """Higher ones are taken first, then older ones."""
    services: Services = request.app.state.services
    asked = await json_of(request, Priority)
    record = await in_thread(services.jobs.set_priority, job_id, asked.priority, principal.project)
    return await in_thread(_whole, request, record)


@router.post(
    "/jobs/{job_id}/pick",
    status_code=201,
    summary="Take a network within other budgets from a sweep",
    response_model=WholeJob,
    openapi_extra=body(examples.PICK, Pick),
    responses={**answer(201, "A job of the kind pick.", examples.SUBMITTED), **answers(404, 409, 422, 429)},
)
async def pick(request: Request, job_id: JobId, principal: Caller, idempotency_key: IdempotencyKey = None) -> Response:
    """Nothing is trained: the best network of the front that is within the budgets."""
    services: Services = request.app.state.services
    asked = await json_of(request, Pick)

    def picked() -> Response:
        parent = services.jobs.get(job_id, principal.project)
        return _made(request, submit_pick(request.app, parent, asked, submitted_by=principal.who, key=idempotency_key))

    return await in_thread(picked)


@router.delete("/jobs/{job_id}", status_code=204, summary="Delete a job that has ended", responses=answers(404, 409))
def delete(request: Request, job_id: JobId, principal: Caller) -> Response:
    """Its events and files go with it."""
    services: Services = request.app.state.services
    services.jobs.delete(job_id, principal.project)
    return Response(status_code=204)


def _made(request: Request, record: JobRecord) -> Response:
    response = _whole(request, record, 201 if record.created else 200)
    response.headers["Location"] = f"/v1/jobs/{record.id}"
    return response


def _whole(request: Request, record: JobRecord, status: int = 200) -> Response:
    services: Services = request.app.state.services
    costs, files = costs_of(services, record)
    document = whole_job_document(record, costs) | {"files": files, "waiting_for": Waiting(request.app).of(record)}
    return JSONResponse(document, status)
