"""The API's documents as pydantic models: what bodies are checked against, and what OpenAPI shows of answers."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field


def in_utc(time: datetime) -> datetime:
    """A time that says no zone is in UTC. Raises ``ValueError`` for what no calendar has there."""
    try:
        return time.replace(tzinfo=UTC) if time.tzinfo is None else time.astimezone(UTC)
    except OverflowError:
        raise ValueError("in UTC this time is before the year 1 or after the year 9999") from None


Moment = Annotated[datetime, AfterValidator(in_utc)]
"""A time as it is kept."""
_Sha = Field(pattern=r"^[0-9a-f]{64}$")
_Token = Field(min_length=1, max_length=200)
Count = Field(default=None, ge=0, le=2**53)


class Strict(BaseModel):
    """A body: nothing in it is ignored."""

    model_config = ConfigDict(extra="forbid")


class Progress(BaseModel):
    """Where a job is: steps of a stage, and of how many, where that is known."""

    stage: str
    done: int | None
    total: int | None


class Job(BaseModel):
    """A job as lists show it."""

    id: str
    project: str
    name: str
    kind: Literal["compress", "sweep", "pick"]
    state: Literal["queued", "running", "done", "failed", "cancelled"]
    priority: int
    labels: list[str]
    submitted_by: str
    created_at: datetime
    started_at: datetime | None
    ended_at: datetime | None
    attempt: int
    deaths: int
    worker: str | None
    cancel_requested: bool
    stage: str | None
    progress: Progress | None
    waiting_for: str | None
    error: dict[str, Any] | None = Field(description="Of a failed job: kind, text and exit_code.")
    parent: str | None


class WholeJob(Job):
    """All of a job."""

    costs: dict[str, Any] | None = Field(description="By name: value, original and unit, once they are decided.")
    files: int = Field(description="How many files its folder has.")
    recipe: dict[str, Any]
    recipe_text: str
    uploads: list[str]


class JobPage(BaseModel):
    """Jobs, the newest first. ``next``, if there may be more, goes on as ``before``."""

    jobs: list[Job]
    next: str | None


class EventPage(BaseModel):
    """Events in order. ``last`` goes on as ``after``; ``ended`` says whether the job has."""

    events: list[dict[str, Any]]
    last: int
    ended: bool


class Priority(Strict):
    """Jobs of a higher priority are taken first."""

    priority: int = Field(ge=-1000, le=1000)


class Pick(Strict):
    """A network to take from what a sweep left."""

    budgets: dict[str, str | float | int]
    export: list[str] | str = ["onnx"]
    target: str | None = Field(default=None, max_length=100)
    name: str = Field(default="", max_length=200)


class NewUpload(Strict):
    """A file that is going to be sent."""

    name: str = Field(min_length=1, max_length=200)
    kind: Literal["weights", "arrays", "images"]
    bytes: int = Field(ge=0, le=2**53)
    sha256: str | None = Field(default=None, pattern=r"^[0-9a-f]{64}$")


class ClaimAsked(Strict):
    """A worker that wants a job; it waits up to ``wait_seconds`` for one."""

    worker: str = Field(min_length=1, max_length=100)
    labels: list[str] = Field(default=[], max_length=100)
    version: str = Field(default="", max_length=100)
    wait_seconds: float = Field(default=0.0, ge=0, le=60)


class Renewal(Strict):
    """The worker lives, and is here."""

    token: str = _Token
    stage: str | None = Field(default=None, max_length=200)
    done: int | None = Count
    total: int | None = Count
    waiting_for: str | None = Field(default=None, max_length=500)


class EventSent(Strict):
    """An event, counted from 0 within the attempt."""

    number: int = Field(ge=0, le=2**53)
    time: Moment
    event: str = Field(min_length=1, max_length=100)
    body: dict[str, Any] = {}


class EventsSent(Strict):
    """A batch of events, in order."""

    token: str = _Token
    events: list[EventSent] = Field(max_length=5000)


class FileSent(Strict):
    """A file of a snapshot, whose content has been put."""

    path: str = Field(min_length=1, max_length=1000)
    sha256: str = _Sha
    bytes: int = Field(ge=0, le=2**53)


class Snapshot(Strict):
    """All files of the job's folder."""

    token: str = _Token
    files: list[FileSent] = Field(max_length=20_000)


class Failure(Strict):
    """Why a job failed, with the exit class that the command line would have had."""

    kind: str = Field(max_length=200)
    text: str = Field(max_length=10_000)
    exit_code: int = Field(default=1, ge=0, le=255)


class Ending(Strict):
    """How a job ended."""

    token: str = _Token
    state: Literal["done", "failed", "cancelled"]
    error: Failure | None = None


class Lease(Strict):
    """The token of a lease."""

    token: str = _Token
