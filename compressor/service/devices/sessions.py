"""Sessions: a job's use of a device, which ends with the job's lease."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import delete, select
from sqlalchemy.orm import Session

from compressor.service.database.base import new_id
from compressor.service.database.tables import JobRow
from compressor.service.devices.records import missing
from compressor.service.devices.tables import DeviceCommandRow, DeviceRow, DeviceSessionRow
from compressor.service.errors import NotFoundError, StaleLeaseError
from compressor.service.records import RUNNING


def begin(session: Session, device: str, job_id: str, token: str, now: datetime) -> str:
    """A new session; its id. Raises ``NotFoundError`` without such a device, ``StaleLeaseError``."""
    if session.get(DeviceRow, device) is None:
        raise missing(device)
    _require_lease(session, job_id, token)
    row = DeviceSessionRow(id=new_id(now), device=device, job_id=job_id, token=token, created_at=now)
    session.add(row)
    session.flush()
    return row.id


def living(session: Session, session_id: str, job_id: str, token: str) -> DeviceSessionRow:
    """A session of the job's present lease. Raises ``NotFoundError``, ``StaleLeaseError``."""
    row = session.get(DeviceSessionRow, session_id)
    if row is None or row.job_id != job_id:
        raise NotFoundError(f"The job {job_id} has no device session {session_id!r}; it may have been removed.")
    _require_lease(session, job_id, token)
    if row.token != token:
        raise StaleLeaseError(f"The device session {session_id} is of an earlier lease of the job {job_id}.")
    return row


def end(session: Session, session_id: str) -> None:
    """Nothing of it is wanted any more; what is being measured is stopped when its agent next asks."""
    session.execute(delete(DeviceCommandRow).where(DeviceCommandRow.session_id == session_id))
    session.execute(delete(DeviceSessionRow).where(DeviceSessionRow.id == session_id))


def drop_dead(session: Session, device: str) -> None:
    """End sessions of a device whose job has ended, or is another worker's now."""
    found = session.execute(
        select(DeviceSessionRow.id, DeviceSessionRow.token, JobRow.state, JobRow.lease_token)
        .outerjoin(JobRow, JobRow.id == DeviceSessionRow.job_id)
        .where(DeviceSessionRow.device == device)
    )
    for name, token, state, present in found.all():
        if state != RUNNING or present != token:
            end(session, name)


def _require_lease(session: Session, job_id: str, token: str) -> None:
    job = session.get(JobRow, job_id)
    if job is None:
        raise NotFoundError(f"There is no job {job_id!r} any more; it was deleted, so leave it and claim another.")
    if job.state != RUNNING or job.lease_token != token:
        raise StaleLeaseError(f"The lease of the job {job_id} has run out or is another worker's now.")
