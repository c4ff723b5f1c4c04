"""What tests of devices share: targets, jobs with a lease, and an agent without a process."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from compressor.service.devices import protocol
from compressor.service.devices.farm import Farm
from compressor.service.devices.protocol import Request
from compressor.service.devices.records import CommandState, Leased
from compressor.service.devices.registered import Told
from compressor.service.records import NewJob
from compressor.service.services import Services
from lut import Device, Measurement, Signature, Target

CONV = Signature("conv2d", (3, 3), (1, 1), (1, 1), (1, 1), spatial=(14, 14))


def target(name: str = "one", threads: int = 1) -> Target:
    return Target(Device("simulated", name), "simulated", "1", threads=threads)


def told(name: str = "one", agent: str = "a") -> Told:
    return Told(target(name).key, agent, "0.1.0")


def job(services: Services, name: str = "") -> tuple[str, str]:
    """A job that a worker has: its id and the token of its lease."""
    made = services.jobs.submit(NewJob("default", {"model": "resnet18"}, name=name))
    claim = services.leases.claim(f"worker of {made.id}")
    assert claim is not None
    return claim.job.id, claim.token


def measuring(point: int = 8, unit: float | None = 1.0) -> Request:
    """A request to time one operator."""
    asked = {"signature": CONV.key, "channels_in": point, "channels_out": point}
    return Request(protocol.MEASURE, reference_ms=unit, arguments=asked)


def pair(margin: str = "") -> Request:
    files = ("a" * 64, "b" * 64)
    asked = {"original": files[0], "other": files[1], "limit": None, "seconds": 1.0, "sure": 0.01, "of": margin}
    return Request(protocol.PAIR, arguments=asked, files=files)


def measured(median_ms: float = 2.0, unit: float = 1.0, name: str = "one", **more: Any) -> dict[str, Any]:
    """The answer to ``measuring``."""
    return answer(asdict(Measurement(median_ms, **more)), unit, name)


def answer(result: dict[str, Any], unit: float = 1.0, name: str = "one") -> dict[str, Any]:
    return {"result": result, "target": target(name).key, "reference_ms": unit, "recent_ms": unit, "info": {}}


class Asking:
    """A job that measures on a device."""

    def __init__(self, farm: Farm, device: str = "one") -> None:
        self.farm = farm
        self.job, self.token = job(farm.services)
        self.session, _ = farm.open_session(self.job, self.token, device)

    def ask(self, key: str, request: Request | None = None) -> CommandState:
        return self.farm.commands.ask(self.session, self.job, self.token, key, request or measuring())


def take(farm: Farm, device: str = "one", agent: str = "a") -> Leased:
    found = farm.commands.next(device, agent)
    assert found is not None
    return found
