"""What the server knows of devices: plain, frozen data."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from compressor.service.errors import NotFoundError
from lut import Device

LABEL = "device:"
"""Labels of jobs that measure on a device begin with this; its name follows."""


@dataclass(frozen=True)
class DeviceRecord:
    """A device.

    Attributes:
        device: what it is; ``runtime`` and ``threads`` are its agent's, unless a job says another number of threads.
        here: whether its agent was heard of lately.
        job_id: the job that it measures for now, if any. ``queued`` measurements wait for it.
    """

    name: str
    device: Device
    runtime: str
    runtime_version: str
    threads: int
    version: str
    registered_at: datetime
    seen_at: datetime
    here: bool
    job_id: str | None = None
    queued: int = 0

    def to_json(self) -> dict[str, Any]:
        """JSON values. ``fingerprint`` is the same for equal devices on any day."""
        return {
            "name": self.name,
            "label": self.device.label,
            "kind": self.device.kind,
            "fingerprint": self.device.fingerprint,
            "runtime": self.runtime,
            "runtime_version": self.runtime_version,
            "threads": self.threads,
            "version": self.version,
            "registered_at": self.registered_at.isoformat(),
            "seen_at": self.seen_at.isoformat(),
            "here": self.here,
            "job": self.job_id,
            "queued": self.queued,
        }


def missing(name: str) -> NotFoundError:
    """What is said of a device that nobody registered, or that was removed."""
    return NotFoundError(f"There is no device {name!r}; start 'compress agent --server URL --name {name}' on it.")


@dataclass(frozen=True)
class CommandState:
    """Where a measurement is: ``answer`` once it is done, else what it waits for, in a line."""

    id: str
    done: bool
    answer: dict[str, Any] | None = None
    waiting_for: str | None = None


@dataclass(frozen=True)
class Leased:
    """A measurement that an agent has to make; ``lease`` proves that it is the agent's."""

    id: str
    lease: str
    request: dict[str, Any]


def ago(seconds: float) -> str:
    """How long ago, for people."""
    for most, size, name in ((120, 1, "s"), (7200, 60, "min"), (172800, 3600, "h")):
        if seconds < most:
            return f"{max(0, seconds) / size:.0f} {name} ago"
    return f"{seconds / 86400:.0f} days ago"
