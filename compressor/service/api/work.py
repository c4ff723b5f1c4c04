"""What workers ask and tell: a job, that they live, what happens, files, and how it ended."""

from __future__ import annotations

import time
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Request
from starlette.responses import JSONResponse, Response

from compressor.service.access.principals import Principal, require
from compressor.service.access.standing import require_still
from compressor.service.api import examples
from compressor.service.api.answer_schemas import Claimed, JobState, LastEvent, Renewed, Taken
from compressor.service.api.bodies import json_of
from compressor.service.api.describing import answer, answers, body
from compressor.service.api.documents import file_document, upload_document
from compressor.service.api.jobs import JobId
from compressor.service.api.projects import Caller
from compressor.service.api.schemas import ClaimAsked, Ending, EventsSent, Lease, Renewal, Snapshot
from compressor.service.api.targets import present_labels
from compressor.service.api.threads import in_thread
from compressor.service.errors import ConflictError
from compressor.service.queue.bell import WORK
from compressor.service.records import Claim, FileRecord, NewEvent
from compressor.service.services import Services
from compressor.storage.reading import Limits

router = APIRouter(prefix="/work", tags=["workers"])

LOOK_SECONDS, ALONE_SECONDS = 1.0, 5.0
"""So often the queue is looked at without a bell where another server may have filled it, and where there is none."""
EVENT_LIMITS = Limits(8 << 20, 400_000, 60_000)
SNAPSHOT_LIMITS = Limits(8 << 20, 100_000, 40_000)


def worker_on(request: Request, job_id: JobId, principal: Caller) -> Principal:
    """Who works on a job: an agent, of its project or of all. Raises ``NotFoundError`` for another project's job."""
    require(principal, "agent")
    services: Services = request.app.state.services
    if principal.project is not None:
        services.jobs.get(job_id, principal.project)
    return principal


Worker = Annotated[Principal, Depends(worker_on)]
"""A parameter of an endpoint: who works on its job."""


class MissingError(ConflictError):
    """Contents that a snapshot names and that have not been put; ``missing`` are their hashes."""

    def __init__(self, missing: list[str]) -> None:
        super().__init__(f"{len(missing)} contents of the snapshot are missing; put them, then send it again.")
        self.missing = missing


@router.post(
    "/claim",
    summary="Ask for a job",
    openapi_extra=body({"worker": "local-1", "labels": [], "version": "0.1.0", "wait_seconds": 30}, ClaimAsked),
    responses={
        **answer(200, "A job, with what it needs to begin or to go on.", examples.CLAIM, Claimed),
        204: {"description": "There was none within `wait_seconds`."},
        **answers(422),
    },
)
async def claim(request: Request, principal: Caller) -> Response:
    """Waits without taking a thread. The `token` goes with everything that is said of the job."""
    require(principal, "agent")
    services: Services = request.app.state.services
    asked = await json_of(request, ClaimAsked)
    until = time.monotonic() + asked.wait_seconds

    def taken() -> Claim | None:
        require_still(request)
        labels = {*asked.labels, *present_labels(request.app)}
        services.workers.seen(asked.worker, asked.labels, asked.version)
        return services.leases.claim(asked.worker, labels, asked.version, principal.project)

    look = ALONE_SECONDS if services.database.is_sqlite else LOOK_SECONDS
    with services.bell.listen(WORK) as ear:
        while not request.app.state.closing.is_set() and not await request.is_disconnected():
            found = await in_thread(taken)
            if found is not None:
                request.app.state.metrics.claimed(found.job)
                return JSONResponse(_claimed(found))
            left = until - time.monotonic()
            if left <= 0:
                break
            await ear.heard_async(min(left, look))
    return Response(status_code=204)


def _claimed(found: Claim) -> dict[str, Any]:
    job = found.job
    return {
        "job": {
            "id": job.id,
            "kind": job.kind,
            "recipe": dict(job.recipe),
            "project": job.project,
            "name": job.name,
            "attempt": job.attempt,
            "parent": job.parent,
        },
        "token": found.token,
        "lease_seconds": found.lease_seconds,
        "files": [file_document(each) for each in found.files],
        "uploads": [upload_document(each) for each in found.uploads],
        "parent_files": [file_document(each) for each in found.parent_files],
    }


@router.post(
    "/{job_id}/renew",
    summary="The worker lives",
    openapi_extra=body({"token": "...", "stage": "search", "done": 120, "total": 420}, Renewal),
    responses={
        **answer(200, "Whether the job is to be cancelled.", {"cancel": False}, Renewed),
        **answers(404, 409, 422),
    },
)
async def renew(request: Request, job_id: JobId, principal: Worker) -> Response:
    """Renews the lease; a stale token is 409: stop, and write nothing more."""
    require(principal, "agent")
    services: Services = request.app.state.services
    asked = await json_of(request, Renewal)
    cancel = await in_thread(
        services.leases.renew,
        job_id,
        asked.token,
        stage=asked.stage,
        done=asked.done,
        total=asked.total,
        waiting_for=asked.waiting_for,
    )
    return JSONResponse({"cancel": cancel})


@router.post(
    "/{job_id}/events",
    summary="Tell what happens",
    openapi_extra=body(
        {
            "token": "...",
            "events": [
                {"number": 0, "time": "2026-03-02T09:12:46Z", "event": "StageBegan", "body": {"stage": "search"}}
            ],
        },
        EventsSent,
    ),
    responses={**answer(200, "Id of the job's last event.", {"last": 17}, LastEvent), **answers(404, 409, 413, 422)},
)
async def events(request: Request, job_id: JobId, principal: Worker) -> Response:
    """Numbers count from 0 in each attempt, so that a batch may be sent again: what is there is left out."""
    require(principal, "agent")
    services: Services = request.app.state.services
    asked = await json_of(request, EventsSent, EVENT_LIMITS)
    batch = [NewEvent(each.number, each.time, each.event, each.body) for each in asked.events]
    return JSONResponse({"last": await in_thread(services.events.append, job_id, asked.token, batch)})


@router.post(
    "/{job_id}/snapshot",
    summary="These are the job's files",
    openapi_extra=body({"token": "...", **examples.FILES_EXAMPLE}, Snapshot),
    responses={**answer(200, "Taken.", {"missing": []}, Taken), **answers(404, 409, 413, 422)},
)
async def snapshot(request: Request, job_id: JobId, principal: Worker) -> Response:
    """All at once or not at all. Contents that are missing are named in the problem (409); put them first."""
    require(principal, "agent")
    services: Services = request.app.state.services
    asked = await json_of(request, Snapshot, SNAPSHOT_LIMITS)
    files = [FileRecord(each.path, each.sha256, each.bytes) for each in asked.files]
    missing = await in_thread(services.files.snapshot, job_id, asked.token, files)
    if missing:
        raise MissingError(missing)
    return JSONResponse({"missing": []})


@router.post(
    "/{job_id}/end",
    summary="The job ended",
    openapi_extra=body({"token": "...", "state": "done", "error": None}, Ending),
    responses={
        **answer(200, "Its state now.", {"id": examples.JOB_ID, "state": "done"}, JobState),
        **answers(404, 409, 422),
    },
)
async def end(request: Request, job_id: JobId, principal: Worker) -> Response:
    """The same again with the same token is harmless."""
    require(principal, "agent")
    services: Services = request.app.state.services
    asked = await json_of(request, Ending)
    error = None if asked.error is None else asked.error.model_dump()
    record = await in_thread(services.leases.end, job_id, asked.token, asked.state, error)
    request.app.state.metrics.ended(record)
    return JSONResponse({"id": record.id, "state": record.state})


@router.post(
    "/{job_id}/release",
    summary="Give the job back",
    openapi_extra=body({"token": "..."}, Lease),
    responses={
        **answer(200, "Its state now.", {"id": examples.JOB_ID, "state": "queued"}, JobState),
        **answers(404, 409),
    },
)
async def release(request: Request, job_id: JobId, principal: Worker) -> Response:
    """Another worker goes on with it from its last snapshot; nothing counts as a failure."""
    require(principal, "agent")
    services: Services = request.app.state.services
    asked = await json_of(request, Lease)
    record = await in_thread(services.leases.release, job_id, asked.token)
    return JSONResponse({"id": record.id, "state": record.state})
