"""What happens in a job, as server-sent events or as pages of JSON."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable
from functools import partial
from typing import Annotated

from fastapi import APIRouter, Depends, Header, Query, Request
from starlette.responses import JSONResponse, Response, StreamingResponse

from compressor.service.access.principals import Principal, principal_of
from compressor.service.access.standing import require_still
from compressor.service.api.describing import answers
from compressor.service.api.documents import event_document
from compressor.service.api.examples import EVENTS_EXAMPLE, SSE_EXAMPLE
from compressor.service.api.frames import Batch, Frames
from compressor.service.api.jobs import JobId
from compressor.service.api.schemas import EventPage
from compressor.service.api.threads import in_thread
from compressor.service.api.watchers import Closing, Watchers
from compressor.service.errors import DatabaseAwayError, NotFoundError, RefusedError, UnauthorizedError
from compressor.service.services import Services

router = APIRouter(tags=["jobs"])

PING_SECONDS = 15.0
LOOK_SECONDS = 2.0
"""So often the database is asked without a bell: another server may have written."""
_PING = b": ping\n\n"


@router.get(
    "/jobs/{job_id}/events",
    summary="What happens in a job",
    response_model=EventPage,
    responses={
        200: {
            "description": "A stream that ends after the event `end`, or a page of JSON, as `Accept` has it.",
            "content": {
                "application/json": {"example": EVENTS_EXAMPLE},
                "text/event-stream": {"schema": {"type": "string"}, "example": SSE_EXAMPLE},
            },
        },
        **answers(404),
    },
)
async def job_events(
    request: Request,
    job_id: JobId,
    principal: Annotated[Principal, Depends(principal_of)],
    after: Annotated[int | None, Query(ge=0, le=2**63 - 1, description="Id of the last event that is known.")] = None,
    limit: Annotated[int, Query(ge=1, le=5000, description="Of a page of JSON.")] = 500,
    last_event_id: Annotated[str | None, Header(description="As `after`; what browsers send.")] = None,
) -> Response:
    """Every event once, in order, after `Last-Event-ID` or from the first on. A comment comes each 15 s."""
    services: Services = request.app.state.services
    last = _number(last_event_id) if last_event_id else (after or 0)
    job = await in_thread(services.jobs.get, job_id, principal.project)
    if not _wants_stream(request):
        found = await in_thread(services.events.after, job.id, last, limit)
        document = {
            "events": [event_document(event) for event in found],
            "last": found[-1].id if found else last,
            "ended": job.ended,
        }
        return JSONResponse(document)
    state = request.app.state
    still = partial(require_still, request)
    stream = _stream(services, state.frames, state.watchers, state.closing, job.id, last, still)
    first = await anext(stream)  # what is refused is refused before the answer begins
    headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
    return StreamingResponse(_after(first, stream), media_type="text/event-stream", headers=headers)


def _wants_stream(request: Request) -> bool:
    return "application/json" not in request.headers.get("accept", "")


def _number(text: str) -> int:
    if not text.isascii() or not text.isdigit() or len(text) > 18:
        raise RefusedError("Last-Event-ID is no id of an event; leave it out to begin with the first.")
    return int(text)


async def _after(first: bytes, rest: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    yield first
    async for each in rest:
        yield each


async def _stream(
    services: Services,
    frames: Frames,
    watchers: Watchers,
    closing: Closing,
    job_id: str,
    last: int,
    still: Callable[[], None] = lambda: None,
) -> AsyncIterator[bytes]:
    """The stream. It holds one batch of events at a time, and no thread while nothing happens. Before it says anything
    it asks ``still``, which raises ``UnauthorizedError`` once the key that it was asked with holds no longer."""
    with watchers.one(), services.bell.listen(job_id) as ear:
        yield b"retry: 1000\n\n"
        said, looked = time.monotonic(), float("-inf")
        while not closing.is_set():
            found: Batch | None = None
            try:
                found = await frames.after(job_id, last)
                if found is not None:
                    await in_thread(still)
                    last = found.last
                    yield found.data
                    said = time.monotonic()
                may_end = found.ends if found is not None else time.monotonic() - looked >= PING_SECONDS
                if may_end and await _is_over(services, job_id, last):
                    return
                looked = time.monotonic() if may_end else looked
            except DatabaseAwayError:
                pass  # it comes back by itself; who watches waits
            except UnauthorizedError:
                return
            if found is None or not found.is_full:
                await ear.heard_async(LOOK_SECONDS)
            if time.monotonic() - said >= PING_SECONDS:
                if not await _may_stay(still):
                    return
                yield _PING
                said = time.monotonic()


async def _may_stay(still: Callable[[], None]) -> bool:
    """Whether a stream that has nothing to say stays open; it does while the database cannot tell."""
    try:
        await in_thread(still)
    except UnauthorizedError:
        return False
    except DatabaseAwayError:
        pass  # nobody is sent away for that; the next look decides
    return True


async def _is_over(services: Services, job_id: str, last: int) -> bool:
    """Whether the job has ended, and nothing comes after ``last``: an ended job may have been retried, or deleted."""
    try:
        job = await in_thread(services.jobs.get, job_id)
    except NotFoundError:
        return True
    return job.ended and not await in_thread(services.events.after, job_id, last, 1)
