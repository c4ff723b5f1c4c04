"""Bodies of requests about devices, and what OpenAPI shows of answers."""

from __future__ import annotations

from typing import Any

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
