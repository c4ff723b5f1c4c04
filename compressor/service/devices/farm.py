"""All that a server does with devices, in one place."""

from __future__ import annotations

from typing import Any

from starlette.applications import Starlette

from compressor.service.devices import rows, sessions
from compressor.service.devices.commands import Commands
from compressor.service.devices.records import LABEL, DeviceRecord
from compressor.service.devices.registered import Devices, Told
from compressor.service.devices.watch import Watch
from compressor.service.errors import ConflictError, RefusedError
from compressor.service.queue.bell import WORK
from compressor.service.services import Services
from lut import InvalidKeyError, Target
from lut.device import device_of


class Farm:
    """Devices, their measurements under way, and their tables.

    Args:
        services: the server's.
    """

    def __init__(self, services: Services) -> None:
        self.services = services
        watch = Watch(services.clock)
        settings, clock = services.settings, services.clock
        self.devices = Devices(services.database, settings, clock, watch)
        self.commands = Commands(services.database, settings, clock, services.bell, self.devices, watch)

    def arrive(self, name: str, told: Told) -> DeviceRecord:
        """An agent is there; jobs that waited for its device may be taken now. Raises as ``Devices.register``."""
        before = self.devices.labels()
        record = self.devices.register(name, told)
        if LABEL + name not in before:
            self.services.bell.ring(WORK)
        return record

    def open_session(self, job_id: str, token: str, name: str) -> tuple[str, DeviceRecord]:
        """A job wants to measure on a device: the session's id. Raises ``NotFoundError``, ``StaleLeaseError``."""
        record = self.devices.get(name)
        with self.services.database.begin() as session:
            return sessions.begin(session, name, job_id, token, self.services.clock.now()), record

    def close_session(self, session_id: str, job_id: str, token: str) -> None:
        """The job is done with the device."""
        with self.services.database.begin() as session:
            sessions.living(session, session_id, job_id, token)
            sessions.end(session, session_id)

    def session_device(self, session_id: str, job_id: str, token: str) -> DeviceRecord:
        """The device of a session. Raises ``NotFoundError``, ``StaleLeaseError``."""
        with self.services.database.begin(write=False) as session:
            name = sessions.living(session, session_id, job_id, token).device
        return self.devices.get(name)

    def table(self, record: DeviceRecord) -> list[dict[str, Any]]:
        """Everything that was measured on a device, see ``rows.table_of``."""
        with self.services.database.begin(write=False) as session:
            return rows.table_of(session, record.device.fingerprint)

    def counts(self) -> dict[str, dict[str, int]]:
        """By fingerprint how many points and calibrations there are."""
        with self.services.database.begin(write=False) as session:
            return rows.counts(session)

    def forget_measured(self, name: str) -> int:
        """Drop what was measured on a device, to measure it anew; how many targets there were."""
        record = self.devices.get(name)
        with self.services.database.begin() as session:
            return rows.forget(session, record.device.fingerprint)

    def keep_calibrations(self, record: DeviceRecord, target_key: str, reference_ms: float, models: Any) -> int:
        """Calibrations that a job made of a device's measurements; how many were kept.

        Raises:
            RefusedError: they are none. ConflictError: they are of another device.
        """
        try:
            target = Target.from_key(target_key)
        except InvalidKeyError as error:
            raise RefusedError(str(error)) from error
        if target.device != device_of(record.device.fingerprint):
            raise ConflictError(f"The calibrations are of {target.device.label}, not of device {record.name}.")
        with self.services.database.begin() as session:
            return rows.store_calibrations(session, target, reference_ms, models)


def farm_of(app: Starlette) -> Farm:
    """The farm of an app, made when it is first asked for."""
    found = getattr(app.state, "devices", None)
    if not isinstance(found, Farm):
        found = app.state.devices = Farm(app.state.services)
    return found


def devices_of(app: Starlette) -> Devices:
    """The devices that an app knows."""
    return farm_of(app).devices
