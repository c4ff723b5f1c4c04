"""Bodies of requests about devices, and what OpenAPI shows of answers."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

LONGEST_WAIT_S = 60.0
_TOKEN = Field(min_length=1, max_length=200)


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid")


class Poll(_Strict):
    """An agent is there. ``target`` is the key of what it measures on, ``agent`` a random name of its process.

    With ``leaving`` it says good-bye.
    """

    target: str = Field(max_length=4000)
    agent: str = _TOKEN
    version: str = Field("", max_length=100)
    wait_seconds: float = Field(10.0, ge=0, le=LONGEST_WAIT_S)
    leaving: bool = False


class Held(_Strict):
    """A measurement that an agent has in hand."""

    command: str = _TOKEN
    lease: str = _TOKEN


class Measured(Held):
    """The answer to a measurement: ``result``, with the conditions, or ``error``."""

    answer: dict[str, Any]


class Opening(_Strict):
    """A job wants to measure on a device."""

    token: str = _TOKEN
    name: str = Field(max_length=63)


class Asking(_Strict):
    """A measurement, or how it stands: the same ``key`` is the same measurement."""

    token: str = _TOKEN
    key: str = _TOKEN
    request: dict[str, Any]
    wait_seconds: float = Field(10.0, ge=0, le=LONGEST_WAIT_S)


class Closing(_Strict):
    """The lease of the job whose session is meant."""

    token: str = _TOKEN


class Calibrations(Closing):
    """Calibrations by model, made of what was measured in the session. ``reference_ms`` is their unit of time."""

    target: str = Field(max_length=4000)
    reference_ms: float = Field(gt=0)
    models: dict[str, dict[str, Any]] = Field(max_length=100)


class PlainDevice(BaseModel):
    """A device. ``fingerprint`` is the same for equal devices on any day."""

    name: str
    label: str
    kind: str
    fingerprint: str
    runtime: str
    runtime_version: str
    threads: int
    version: str
    registered_at: datetime
    seen_at: datetime
    here: bool
    job: str | None
    queued: int


class Device(PlainDevice):
    """A device, with the numbers of what was measured on it."""

    points: int
    calibrations: int


class DeviceList(BaseModel):
    """Devices by name."""

    devices: list[Device]


class TargetTable(BaseModel):
    """What was measured of a target. Points are rows of ``columns``, calibrations are by model."""

    key: str
    label: str
    reference_ms: float
    columns: list[str]
    signatures: list[dict[str, Any]]
    calibrations: dict[str, Any]


class TargetTables(BaseModel):
    """The latency table of a device, by target."""

    targets: list[TargetTable]


class Table(TargetTables):
    """The latency table of the device ``name``."""

    name: str


class Forgotten(BaseModel):
    """How many targets had been measured."""

    targets: int


class Lent(BaseModel):
    """A measurement to be made. ``lease`` goes with the answer."""

    id: str
    lease: str
    request: dict[str, Any]


class Opened(BaseModel):
    """A session of a job on a device."""

    session: str
    device: PlainDevice


class Asked(BaseModel):
    """A measurement that is done, with its ``answer``, or what it waits for."""

    state: Literal["done", "waiting"]
    answer: dict[str, Any] | None = None
    waiting_for: str | None = None


class Kept(BaseModel):
    """How many calibrations were kept."""

    kept: int
