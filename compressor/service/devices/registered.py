"""Devices by name: who answers for them, and whether they are here now."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from sqlalchemy import delete, func, select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from compressor.service.clock import Clock
from compressor.service.database.engine import Database
from compressor.service.devices.protocol import NAME
from compressor.service.devices.records import LABEL, DeviceRecord, ago, missing
from compressor.service.devices.tables import DeviceCommandRow, DeviceRow, DeviceSessionRow
from compressor.service.devices.watch import Watch
from compressor.service.errors import ConflictError, RefusedError
from compressor.service.settings import ServiceSettings
from lut import InvalidKeyError, Target
from lut.device import device_of
from profilers.registry import RUNTIMES

_LONG_S = 600.0
"""A device not seen for this long is away, even for a server that has just been started."""


class AnotherAgentError(ConflictError):
    """Another agent answers for this name now; it may go."""

    retry_after = 5


@dataclass(frozen=True)
class Told:
    """What an agent says of itself.

    Attributes:
        target: key of the target that it measures on by default: device, runtime, version, threads.
        agent: the process, at random.
        version: of the program.
    """

    target: str
    agent: str
    version: str = ""


class Devices:
    """All devices that ever registered and were not removed. Safe to use from any thread."""

    def __init__(self, database: Database, settings: ServiceSettings, clock: Clock, watch: Watch) -> None:
        self._database, self._clock, self._watch = database, clock, watch
        self._away_s = settings.device_away_seconds

    def register(self, name: str, told: Told) -> DeviceRecord:
        """An agent is there, for the first time or again.

        Raises:
            RefusedError: a name that no device can have, or a target that is none.
            ConflictError: the name belongs to another machine. AnotherAgentError: another agent answers for it.
        """
        target = _target(told)
        if not NAME.fullmatch(name) or name in RUNTIMES:
            raise RefusedError(
                f"{name!r} cannot be the name of a device; expected up to 63 of a-z, 0-9, '.', '_' and '-', and not "
                "the name of a runtime. Choose another with --name."
            )
        now = self._clock.now()
        try:
            with self._database.begin() as session:
                row = session.get(DeviceRow, name)
                if row is None:
                    row = DeviceRow(name=name, fingerprint=target.device.fingerprint, registered_at=now)
                    session.add(row)
                elif row.fingerprint != target.device.fingerprint:
                    raise ConflictError(
                        f"The name {name!r} belongs to another machine, {device_of(row.fingerprint).label}; this one "
                        f"is {target.device.label}. Choose another --name, or remove the device first (DELETE "
                        f"/v1/devices/{name}, scope admin): its measurements stay."
                    )
                elif row.agent != told.agent and self.here(row):
                    raise AnotherAgentError(
                        f"Another agent answers for {name!r}, {self.last_seen(row)}; stop it, or choose another --name."
                    )
                row.runtime, row.runtime_version, row.threads = target.runtime, target.runtime_version, target.threads
                row.version, row.agent, row.seen_at = told.version[:100], told.agent[:100], now
                session.flush()
                self.away_for(row)  # from now on
                return self._record(session, row)
        except IntegrityError as error:
            raise AnotherAgentError(f"Another agent has just taken the name {name!r}; try again.") from error

    def leave(self, name: str, agent: str) -> None:
        """An agent ends in good order: another may take its place at once."""
        with self._database.begin() as session:
            row = session.get(DeviceRow, name)
            if row is not None and row.agent == agent:
                row.agent = ""

    def get(self, name: str) -> DeviceRecord:
        """A device. Raises ``NotFoundError``."""
        with self._database.begin(write=False) as session:
            row = session.get(DeviceRow, name)
            if row is None:
                raise missing(name)
            return self._record(session, row)

    def list(self) -> list[DeviceRecord]:
        """All of them, by name."""
        with self._database.begin(write=False) as session:
            rows = session.scalars(select(DeviceRow).order_by(DeviceRow.name)).all()
            return [self._record(session, row) for row in rows]

    def remove(self, name: str) -> None:
        """Forget a name; what was measured stays, under its fingerprint. Raises ``NotFoundError``."""
        self.get(name)
        with self._database.begin() as session:
            used = select(DeviceSessionRow.id).where(DeviceSessionRow.device == name)
            session.execute(delete(DeviceCommandRow).where(DeviceCommandRow.session_id.in_(used)))
            session.execute(delete(DeviceSessionRow).where(DeviceSessionRow.device == name))
            session.execute(delete(DeviceRow).where(DeviceRow.name == name))

    def labels(self) -> set[str]:
        """``device:NAME`` of every device that is here: a worker may take jobs that need it."""
        with self._database.begin(write=False) as session:
            return {LABEL + row.name for row in session.scalars(select(DeviceRow)) if self.here(row)}

    def waiting_for(self, labels: Collection[str]) -> str | None:
        """What a queued job with these labels waits for, if a device of it is away."""
        names = sorted(label.removeprefix(LABEL) for label in labels if label.startswith(LABEL))
        if not names:
            return None
        with self._database.begin(write=False) as session:
            rows = {row.name: row for row in session.scalars(select(DeviceRow).where(DeviceRow.name.in_(names)))}
        away = [name for name in names if name not in rows or not self.here(rows[name])]
        seen = [f"device {name}, {self.last_seen(rows[name]) if name in rows else 'never seen'}" for name in away]
        return "; ".join(seen) or None

    # ---- for those who have a row in hand

    def heard(self, row: DeviceRow) -> None:
        """Its agent said something."""
        row.seen_at = self._clock.now()
        self.away_for(row)

    def away_for(self, row: DeviceRow) -> float:
        """Seconds since the agent was heard of, as far as this server knows."""
        return self._watch.unchanged_for(("device", row.name), row.seen_at)

    def here(self, row: DeviceRow) -> bool:
        """Whether its agent was heard of lately, and has not said good-bye."""
        age = (self._clock.now() - row.seen_at).total_seconds()
        lately = age <= self._away_s or (age <= _LONG_S and self.away_for(row) <= self._away_s)
        return row.agent != "" and lately

    def last_seen(self, row: DeviceRow) -> str:
        """``last seen 40 s ago``."""
        return f"last seen {ago((self._clock.now() - row.seen_at).total_seconds())}"

    def _record(self, session: Session, row: DeviceRow) -> DeviceRecord:
        mine = DeviceCommandRow.device == row.name
        queued = session.scalar(
            select(func.count()).select_from(DeviceCommandRow).where(mine, DeviceCommandRow.state == "queued")
        )
        running = session.scalar(
            select(DeviceSessionRow.job_id)
            .join(DeviceCommandRow, DeviceCommandRow.session_id == DeviceSessionRow.id)
            .where(mine, DeviceCommandRow.state == "running")
            .limit(1)
        )
        return DeviceRecord(
            row.name,
            device_of(row.fingerprint),
            row.runtime,
            row.runtime_version,
            row.threads,
            row.version,
            row.registered_at,
            row.seen_at,
            self.here(row),
            running,
            queued or 0,
        )


def _target(told: Told) -> Target:
    try:
        return Target.from_key(told.target)
    except InvalidKeyError as error:
        raise RefusedError(f"The agent does not say what it measures on: {error}") from error
