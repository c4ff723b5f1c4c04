"""``/devices``: who measures, who works, and what is known of each device."""

from __future__ import annotations

from contextlib import suppress
from datetime import UTC, datetime
from typing import Any

from fastapi import APIRouter, Request
from sqlalchemy import func, select
from starlette.responses import Response

from compressor.service.access.principals import Principal
from compressor.service.api.targets import SEEN_SECONDS
from compressor.service.devices.farm import farm_of
from compressor.service.devices.records import DeviceRecord
from compressor.service.devices.tables import DevicePointRow, DeviceTargetRow
from compressor.service.errors import NotFoundError
from compressor.service.page.gate import Asker, Parts, page
from compressor.service.records import JobRecord
from compressor.service.services import Services

router = APIRouter(include_in_schema=False)


@router.get("/devices")
def devices(request: Request, asker: Asker, services: Parts) -> Response:
    """Devices with their tables, then workers."""
    farm = farm_of(request.app)
    here = {record.name for record in services.workers.list(SEEN_SECONDS)}
    counts, newest = farm.counts(), _newest(services)
    workers = [
        {
            "record": record,
            "here": record.name in here,
            "job": _job(services, asker, record.job_id),
        }
        for record in services.workers.list()
    ]
    shown = [
        _device(record, counts, newest) | {"job": _job(services, asker, record.job_id)}
        for record in farm.devices.list()
    ]
    return page(request, "devices.html", devices=shown, workers=workers)


def _job(services: Services, asker: Principal, job_id: str | None) -> JobRecord | None:
    """What somebody works on, unless it is another project's."""
    if job_id is None:
        return None
    try:
        return services.jobs.get(job_id, asker.project)
    except NotFoundError:
        return None


def _newest(services: Services) -> dict[str, str]:
    """By fingerprint of a device when its newest point was measured."""
    wanted = (
        select(DeviceTargetRow.fingerprint, func.max(DevicePointRow.measured_at))
        .join(DevicePointRow, DevicePointRow.target_id == DeviceTargetRow.id)
        .group_by(DeviceTargetRow.fingerprint)
    )
    with services.database.begin(write=False) as session:
        return {str(fingerprint): str(moment) for fingerprint, moment in session.execute(wanted)}


def _device(record: DeviceRecord, counts: dict[str, dict[str, int]], newest: dict[str, str]) -> dict[str, Any]:
    """A device as the table shows it."""
    fingerprint = record.device.fingerprint
    said = {"points": 0, "calibrations": 0, **counts.get(fingerprint, {})}
    moment: datetime | None = None
    with suppress(ValueError):  # an agent's own words
        found = datetime.fromisoformat(newest.get(fingerprint, ""))
        moment = found.replace(tzinfo=UTC) if found.tzinfo is None else found
    return {"record": record, "newest": moment, **said}
