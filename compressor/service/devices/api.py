"""Devices over HTTP: their list and tables for everybody, measurements for agents and for the workers of jobs."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Annotated, Any

from fastapi import APIRouter, Path, Request
from starlette.responses import JSONResponse, Response, StreamingResponse

from compressor.service.access.login import access_of
from compressor.service.access.principals import require
from compressor.service.access.standing import require_still
from compressor.service.api.answer_schemas import Renewed
from compressor.service.api.bodies import json_of
from compressor.service.api.describing import Sha256, answer, answers, body
from compressor.service.api.examples import BYTES, JOB_ID
from compressor.service.api.files import send_file
from compressor.service.api.projects import Caller
from compressor.service.api.threads import in_thread
from compressor.service.devices import examples
from compressor.service.devices.commands import topic
from compressor.service.devices.farm import devices_of, farm_of
from compressor.service.devices.protocol import Request as Measurement
from compressor.service.devices.records import CommandState, Leased
from compressor.service.devices.registered import Told
from compressor.service.devices.schemas import (
    Asked,
    Asking,
    Calibrations,
    Closing,
    Device,
    DeviceList,
    Forgotten,
    Held,
    Kept,
    Lent,
    Measured,
    Opened,
    Opening,
    Poll,
    Table,
    TargetTables,
)
from compressor.service.errors import NotFoundError
from compressor.service.records import FileRecord
from compressor.storage.reading import Limits

__all__ = ["devices_of", "farm_of", "router"]

router = APIRouter(tags=["devices"])

Name = Annotated[str, Path(max_length=63, description="The device's name.", examples=["jetson-1"])]
JobId = Annotated[str, Path(max_length=40, examples=[JOB_ID])]
SessionId = Annotated[str, Path(max_length=40, examples=[examples.OPENED["session"]])]
#: Answers hold the bursts of a comparison, requests the hashes of a few hundred files.
LIMITS = Limits(16 << 20, 1_000_000, 1_000_000)
_LOOK_S, _ALONE_S = 1.0, 5.0
"""So often the database is looked at without a bell where another server may have written, and where there is none."""


async def _until(request: Request, seconds: float, heard: str, look: Callable[[], Any]) -> Any:
    """What ``look`` finds, as soon as it finds something, or the last it said when time is up. Takes no thread."""
    farm, until = farm_of(request.app), time.monotonic() + seconds
    most = _ALONE_S if farm.services.database.is_sqlite else _LOOK_S

    def looked() -> Any:
        require_still(request)
        return look()

    with farm.services.bell.listen(topic(heard)) as ear:
        while True:
            found = await in_thread(looked)
            left = until - time.monotonic()
            done = found.done if isinstance(found, CommandState) else found is not None
            if done or left <= 0 or request.app.state.closing.is_set() or await request.is_disconnected():
                return found
            await ear.heard_async(min(left, most))


# ---- for everybody


@router.get(
    "/devices",
    summary="Devices and whether they are here",
    responses={**answer(200, "By name.", examples.DEVICES, DeviceList), **answers()},
)
async def list_(request: Request, principal: Caller) -> Response:
    """With the numbers of points and calibrations that were measured on each."""
    farm = farm_of(request.app)
    counts = await in_thread(farm.counts)
    found = [_document(record, counts) for record in await in_thread(farm.devices.list)]
    return JSONResponse({"devices": found})


@router.get(
    "/devices/{name}",
    summary="One device",
    responses={**answer(200, "The device.", examples.DEVICE, Device), **answers(404)},
)
async def get(request: Request, name: Name, principal: Caller) -> Response:
    """As in the list."""
    farm = farm_of(request.app)
    return JSONResponse(_document(await in_thread(farm.devices.get, name), await in_thread(farm.counts)))


@router.get(
    "/devices/{name}/table",
    summary="Its latency table",
    responses={**answer(200, "By target.", examples.TABLE, Table), **answers(404)},
)
async def table(request: Request, name: Name, principal: Caller) -> Response:
    """Milliseconds of every operator that any job had measured there, in the target's unit of time."""
    farm = farm_of(request.app)
    record = await in_thread(farm.devices.get, name)
    return JSONResponse({"name": name, "targets": await in_thread(farm.table, record)})


@router.delete("/devices/{name}", status_code=204, summary="Forget a name", responses=answers(404))
async def remove(request: Request, name: Name, principal: Caller) -> Response:
    """Another machine may then take it. What was measured stays."""
    require(principal, "admin")
    await in_thread(devices_of(request.app).remove, name)
    return Response(status_code=204)


@router.delete(
    "/devices/{name}/table",
    summary="Forget what was measured",
    responses={**answer(200, "How many targets had been measured.", {"targets": 1}, Forgotten), **answers(404)},
)
async def forget(request: Request, name: Name, principal: Caller) -> Response:
    """The next job measures anew."""
    require(principal, "admin")
    return JSONResponse({"targets": await in_thread(farm_of(request.app).forget_measured, name)})


# ---- for agents


@router.post(
    "/devices/{name}/poll",
    summary="Ask for something to measure",
    openapi_extra=body(examples.POLL, Poll),
    responses={
        **answer(200, "A measurement, which is the agent's until its lease runs out.", examples.LEASED, Lent),
        204: {"description": "There was none within `wait_seconds`."},
        **answers(409, 422),
    },
)
async def poll(request: Request, name: Name, principal: Caller) -> Response:
    """Registers the device under its name; another machine under the same name is refused."""
    require(principal, "agent")
    asked = await json_of(request, Poll)
    farm = farm_of(request.app)
    if asked.leaving:
        await in_thread(farm.devices.leave, name, asked.agent)
        return Response(status_code=204)
    record = await in_thread(farm.arrive, name, Told(asked.target, asked.agent, asked.version))
    if record.registered_at == record.seen_at:  # for the first time
        await in_thread(access_of(request).audit.record, principal.who, "device.register", name)
    found: Leased | None = await _until(
        request, asked.wait_seconds, name, lambda: farm.commands.next(name, asked.agent)
    )
    if found is None:
        return Response(status_code=204)
    return JSONResponse({"id": found.id, "lease": found.lease, "request": found.request})


@router.post(
    "/devices/{name}/poll/renew",
    summary="Say that it goes on",
    openapi_extra=body(examples.HELD, Held),
    responses={**answer(200, "Whether to give it up.", {"cancel": False}, Renewed), **answers(409)},
)
async def renew(request: Request, name: Name, principal: Caller) -> Response:
    """``cancel``: nobody waits for the answer any more."""
    require(principal, "agent")
    held = await json_of(request, Held)
    cancel = await in_thread(farm_of(request.app).commands.renew, name, held.command, held.lease)
    return JSONResponse({"cancel": cancel})


@router.get(
    "/devices/{name}/poll/files/{sha256}",
    summary="Fetch a file to measure",
    response_class=StreamingResponse,
    responses={
        200: {"description": "The file.", "content": {"application/octet-stream": BYTES}},
        206: {"description": "The part that `Range` names."},
        **answers(404, 416),
    },
)
async def fetch(request: Request, name: Name, sha256: Sha256, principal: Caller) -> Response:
    """Only files of what the device's agent has in hand."""
    require(principal, "agent")
    farm = farm_of(request.app)
    if not await in_thread(farm.commands.may_fetch, name, sha256):
        raise NotFoundError("There is no such file in what this device has to measure; ask for work again.")
    size = await in_thread(farm.services.blobs.size, sha256)
    return await send_file(request, FileRecord(sha256, sha256, size), attachment=True)


@router.post(
    "/devices/{name}/results",
    status_code=204,
    summary="Answer",
    openapi_extra=body(examples.MEASURED, Measured),
    responses=answers(409, 422),
)
async def results(request: Request, name: Name, principal: Caller) -> Response:
    """What was measured is kept, and given to the job that asked."""
    require(principal, "agent")
    sent = await json_of(request, Measured, LIMITS)
    await in_thread(farm_of(request.app).commands.finish, name, sent.command, sent.lease, sent.answer)
    return Response(status_code=204)


# ---- for workers, on behalf of a job


@router.post(
    "/work/{job}/device",
    status_code=201,
    summary="Begin to measure on a device",
    openapi_extra=body(examples.OPENING, Opening),
    responses={**answer(201, "A session, and the device.", examples.OPENED, Opened), **answers(404, 409)},
)
async def open_(request: Request, job: JobId, principal: Caller) -> Response:
    """The session lives as long as the job's lease."""
    require(principal, "agent")
    asked = await json_of(request, Opening)
    session, record = await in_thread(farm_of(request.app).open_session, job, asked.token, asked.name)
    return JSONResponse({"session": session, "device": record.to_json()}, 201)


@router.post(
    "/work/{job}/device/{session}",
    summary="Measure",
    openapi_extra=body(examples.ASKING, Asking),
    responses={**answer(200, "The answer, or what is waited for.", examples.ASKED, Asked), **answers(404, 409, 422)},
)
async def ask(request: Request, job: JobId, session: SessionId, principal: Caller) -> Response:
    """Waits up to `wait_seconds`; asked again with the same `key`, it goes on waiting."""
    require(principal, "agent")
    asked = await json_of(request, Asking, LIMITS)
    farm, wanted = farm_of(request.app), Measurement.from_json(asked.request)

    def look() -> CommandState:
        return farm.commands.ask(session, job, asked.token, asked.key, wanted)

    first: CommandState = await in_thread(look)
    state = first if first.done else await _until(request, asked.wait_seconds, first.id, look)
    if state.done:
        return JSONResponse({"state": "done", "answer": state.answer})
    return JSONResponse({"state": "waiting", "waiting_for": state.waiting_for})


@router.post(
    "/work/{job}/device/{session}/table",
    summary="The device's latency table",
    openapi_extra=body(examples.CLOSING, Closing),
    responses={**answer(200, "By target.", {"targets": examples.TABLE["targets"]}, TargetTables), **answers(404, 409)},
)
async def session_table(request: Request, job: JobId, session: SessionId, principal: Caller) -> Response:
    """What the job begins with."""
    require(principal, "agent")
    farm, asked = farm_of(request.app), await json_of(request, Closing)
    record = await in_thread(farm.session_device, session, job, asked.token)
    return JSONResponse({"targets": await in_thread(farm.table, record)})


@router.post(
    "/work/{job}/device/{session}/calibrations",
    summary="Keep calibrations",
    openapi_extra=body(examples.CALIBRATIONS, Calibrations),
    responses={**answer(200, "How many were kept.", {"kept": 1}, Kept), **answers(404, 409)},
)
async def calibrations(request: Request, job: JobId, session: SessionId, principal: Caller) -> Response:
    """For later jobs with networks of the same classes."""
    require(principal, "agent")
    farm, sent = farm_of(request.app), await json_of(request, Calibrations, LIMITS)
    record = await in_thread(farm.session_device, session, job, sent.token)
    kept = await in_thread(farm.keep_calibrations, record, sent.target, sent.reference_ms, sent.models)
    return JSONResponse({"kept": kept})


@router.post(
    "/work/{job}/device/{session}/close",
    status_code=204,
    summary="End a session",
    openapi_extra=body(examples.CLOSING, Closing),
    responses=answers(404, 409),
)
async def close(request: Request, job: JobId, session: SessionId, principal: Caller) -> Response:
    """What is still being measured for it is stopped."""
    require(principal, "agent")
    asked = await json_of(request, Closing)
    await in_thread(farm_of(request.app).close_session, session, job, asked.token)
    return Response(status_code=204)


def _document(record: Any, counts: dict[str, dict[str, int]]) -> dict[str, Any]:
    return {**record.to_json(), **counts.get(record.device.fingerprint, {"points": 0, "calibrations": 0})}
