"""Measurements on their way: asked by jobs, leased to the device's agent one at a time, answered once.

A device measures one thing at a time. Jobs that want it take turns: next is the job that was served longest ago. A
measurement whose agent vanished is queued again; nothing else is lost with it.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from compressor.service.clock import Clock
from compressor.service.database.base import new_id
from compressor.service.database.engine import Database
from compressor.service.database.tables import JobRow
from compressor.service.devices import answers, protocol, sessions
from compressor.service.devices.protocol import Request
from compressor.service.devices.records import CommandState, Leased
from compressor.service.devices.registered import Devices
from compressor.service.devices.tables import DeviceCommandRow, DeviceResultRow, DeviceRow, DeviceSessionRow
from compressor.service.devices.watch import Watch
from compressor.service.errors import ConflictError, NotFoundError
from compressor.service.queue.bell import Bell
from compressor.service.records import RUNNING
from compressor.service.settings import ServiceSettings
from profilers.errors import DeviceLostError

_MOST_LOSSES = 3
"""Agents that may vanish over one measurement."""


class Commands:
    """See the module's documentation. Safe to use from any thread."""

    def __init__(
        self,
        database: Database,
        settings: ServiceSettings,
        clock: Clock,
        bell: Bell,
        devices: Devices,
        watch: Watch,
    ) -> None:
        self._database, self._clock, self._bell = database, clock, bell
        self._devices, self._watch = devices, watch
        self._lease_s, self._patience_s = settings.device_lease_seconds, settings.device_patience_seconds

    # ---- the job's side

    def ask(self, session_id: str, job_id: str, token: str, key: str, request: Request) -> CommandState:
        """Ask for a measurement, or, with the same ``key`` again, how it stands.

        Raises:
            NotFoundError: there is no such session. StaleLeaseError: it is of an earlier lease of the job.
        """
        with self._database.begin(write=False) as session:  # who only looks again writes nothing
            sessions.living(session, session_id, job_id, token)
            row = session.scalar(_asked(session_id, key))
            if row is not None and self._due(session, row) is None:
                return self._state(session, row)
        with self._database.begin() as session:
            mine = sessions.living(session, session_id, job_id, token)
            row = session.scalar(_asked(session_id, key)) or self._new(session, mine, key, request)
            due = self._due(session, row)
            if due is not None:
                due()
            state = self._state(session, row)
        self._bell.ring(topic(mine.device))
        return state

    def _new(self, session: Session, mine: DeviceSessionRow, key: str, request: Request) -> DeviceCommandRow:
        device = session.get_one(DeviceRow, mine.device)
        cache_key = request.cache_key(answers.conditions(device))
        known = session.get(DeviceResultRow, cache_key) if cache_key is not None else None
        now = self._clock.now()
        row = DeviceCommandRow(
            id=new_id(now),
            session_id=mine.id,
            device=mine.device,
            key=key,
            state="queued" if known is None else "done",
            request=request.to_json(),
            files=list(request.files),
            cache_key=cache_key,
            answer=None if known is None else {**known.answer, "cached": True},
            created_at=now,
            losses=0,
        )
        session.add(row)
        session.flush()
        return row

    def _due(self, session: Session, row: DeviceCommandRow) -> Callable[[], None] | None:
        """What has to be done about a measurement of which nothing was heard for too long."""
        if row.state == "running" and self._silent_for(row) > self._lease_s:
            return lambda: self._lose(row)
        device = session.get_one(DeviceRow, row.device)
        if row.state == "done" or self._devices.here(device):
            return None
        asked_s = self._watch.unchanged_for(("asked", row.id), row.key)
        if min(self._devices.away_for(device), asked_s) <= self._patience_s:
            return None
        text = (
            f"The device {row.device} is away, {self._devices.last_seen(device)}; start its agent, and run this again."
        )
        return lambda: self._end(row, protocol.error_json(DeviceLostError(text)))

    def _state(self, session: Session, row: DeviceCommandRow) -> CommandState:
        if row.state == "done":
            return CommandState(row.id, True, row.answer)
        device = session.get_one(DeviceRow, row.device)
        if not self._devices.here(device):
            return CommandState(row.id, False, None, f"device {row.device}, {self._devices.last_seen(device)}")
        waits = row.state == "queued" and session.scalar(_running(row.device)) is not None
        return CommandState(row.id, False, None, f"device {row.device}, which is measuring" if waits else None)

    # ---- the agent's side

    def next(self, name: str, agent: str) -> Leased | None:
        """The next measurement for a device, if there is one. An agent that asks has nothing in hand."""
        with self._database.begin() as session:
            device = session.get(DeviceRow, name)
            if device is None or device.agent != agent:
                raise NotFoundError(f"The device {name!r} is not registered by this agent; register it again.")
            for row in session.scalars(_running(name).with_for_update()):
                self._lose(row)
            session.flush()
            sessions.drop_dead(session, name)
            row = _next(session, name)
            if row is None:
                return None
            row.state, row.lease, row.renewed_at = "running", secrets.token_hex(16), self._clock.now()
            session.get_one(DeviceSessionRow, row.session_id).served_at = row.renewed_at
            self._silent_for(row)
            return Leased(row.id, row.lease, row.request)

    def renew(self, name: str, command: str, lease: str) -> bool:
        """The agent lives and measures. Whether it is to stop: nobody wants the answer any more."""
        with self._database.begin() as session:
            device, row = session.get(DeviceRow, name), self._held(session, name, command, lease)
            if device is not None:
                self._devices.heard(device)
            if row is None:
                return True
            job = session.get(JobRow, session.get_one(DeviceSessionRow, row.session_id).job_id)
            mine = session.get_one(DeviceSessionRow, row.session_id)
            row.renewed_at = self._clock.now()
            self._silent_for(row)
            return job is None or job.state != RUNNING or job.lease_token != mine.token

    def finish(self, name: str, command: str, lease: str, answer: dict[str, Any]) -> None:
        """The agent's answer: kept with the device's rows and results, and given to who asked.

        Raises:
            ConflictError: the measurement is not this agent's any more.
            RefusedError: the answer is none.
        """
        with self._database.begin() as session:
            device, row = session.get(DeviceRow, name), self._held(session, name, command, lease)
            if device is None or row is None:
                raise ConflictError("This measurement was taken back; its answer is not needed any more.")
            answers.keep(session, device, row, answer, self._clock.now())
            self._devices.heard(device)
            self._end(row, answer)
        self._bell.ring(topic(command))

    def may_fetch(self, name: str, sha256: str) -> bool:
        """Whether a file belongs to what the device's agent has in hand."""
        with self._database.begin(write=False) as session:
            return any(sha256 in row.files for row in session.scalars(_running(name)))

    # ---- inside

    def _held(self, session: Session, name: str, command: str, lease: str) -> DeviceCommandRow | None:
        row = session.get(DeviceCommandRow, command, with_for_update=True)
        held = row is not None and row.device == name and row.state == "running" and row.lease == lease
        return row if held else None

    def _silent_for(self, row: DeviceCommandRow) -> float:
        """Seconds since its agent was heard of, as far as this server knows."""
        return self._watch.unchanged_for(("command", row.id), row.renewed_at)

    def _lose(self, row: DeviceCommandRow) -> None:
        row.losses += 1
        row.state, row.lease = "queued", None
        if row.losses >= _MOST_LOSSES:
            what = f"{row.request['operation']!r}, {_MOST_LOSSES} times"
            lost = DeviceLostError(f"The agent of device {row.device} vanished over the same measurement ({what}).")
            self._end(row, protocol.error_json(lost))

    def _end(self, row: DeviceCommandRow, answer: dict[str, Any]) -> None:
        row.state, row.answer, row.lease, row.ended_at = "done", answer, None, self._clock.now()
        self._watch.forget(("command", row.id))
        self._watch.forget(("asked", row.id))


def topic(name: str) -> str:
    """What rings for a device (something to measure) or a command (it is done)."""
    return f"device {name}"


def _asked(session_id: str, key: str) -> Any:
    return select(DeviceCommandRow).where(DeviceCommandRow.session_id == session_id, DeviceCommandRow.key == key)


def _running(name: str) -> Any:
    return select(DeviceCommandRow).where(DeviceCommandRow.device == name, DeviceCommandRow.state == "running")


def _next(session: Session, name: str) -> DeviceCommandRow | None:
    """Of the job that was served longest ago, the oldest."""
    mine = {each.id: each for each in session.scalars(select(DeviceSessionRow).where(DeviceSessionRow.device == name))}
    served: dict[str, float] = {}
    for each in mine.values():
        at = each.served_at.timestamp() if each.served_at is not None else 0.0
        served[each.job_id] = max(at, served.get(each.job_id, 0.0))
    waiting = select(DeviceCommandRow).where(DeviceCommandRow.device == name, DeviceCommandRow.state == "queued")
    rows = session.scalars(waiting.with_for_update(skip_locked=True)).all()
    return min(rows, key=lambda row: (served[mine[row.session_id].job_id], row.created_at, row.id), default=None)
