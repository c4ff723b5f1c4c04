"""What the queue and the stores hand out: plain, frozen data, detached from the database. Times are aware and UTC."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

QUEUED, RUNNING, DONE, FAILED, CANCELLED = "queued", "running", "done", "failed", "cancelled"
STATES = (QUEUED, RUNNING, DONE, FAILED, CANCELLED)
ENDED = (DONE, FAILED, CANCELLED)
JOB_KINDS = ("compress", "sweep", "pick")
UPLOAD_KINDS = ("weights", "arrays", "images")
STATE_EVENT, END_EVENT = "state", "end"
"""Kinds of events that the queue itself writes, ``{"state", ...}``: a job is queued again or running; it ended."""


@dataclass(frozen=True)
class NewJob:
    """A job to submit.

    Attributes:
        recipe: what it does, JSON values, as it was checked.
        recipe_text: what the user sent, to be shown again.
        labels: what a worker must have, such as ``code`` or ``device:jetson-1``; all of them.
        idempotency_key: the same key with the same recipe, kind and parent is the same job.
        parent: the job whose files it starts from (a pick, ``start: job:ID``).
        uploads: ids of uploads that it reads.
    """

    project: str
    recipe: Mapping[str, Any]
    recipe_text: str = ""
    name: str = ""
    kind: str = "compress"
    priority: int = 0
    labels: tuple[str, ...] = ()
    submitted_by: str = ""
    idempotency_key: str | None = None
    parent: str | None = None
    uploads: tuple[str, ...] = ()


@dataclass(frozen=True)
class JobSummary:
    """A job as a list shows it.

    Attributes:
        attempt: how often a worker took it; 0 before the first.
        deaths: workers that died of it since it was submitted or retried.
        stage, done, total: where it is: steps of the stage, and of how many, where known.
        waiting_for: what it waits for in a line, such as a device that is away.
        error: why it failed: ``{"kind", "text", "exit_code"}``.
    """

    id: str
    project: str
    name: str
    kind: str
    state: str
    priority: int
    labels: tuple[str, ...]
    submitted_by: str
    created_at: datetime
    started_at: datetime | None
    ended_at: datetime | None
    attempt: int
    deaths: int
    worker: str | None
    cancel_requested: bool
    stage: str | None
    done: int | None
    total: int | None
    waiting_for: str | None
    error: Mapping[str, Any] | None
    parent: str | None

    @property
    def ended(self) -> bool:
        """Whether it is done, failed or cancelled."""
        return self.state in ENDED


@dataclass(frozen=True)
class JobRecord(JobSummary):
    """All of a job but its lease's token, which only the worker knows."""

    recipe: Mapping[str, Any] = field(default_factory=dict)
    recipe_text: str = ""
    idempotency_key: str | None = None
    uploads: tuple[str, ...] = ()
    not_before: datetime | None = None
    lease_expires_at: datetime | None = None
    created: bool = True
    """False where ``Jobs.submit`` found the job that an earlier request with the same key had made."""


@dataclass(frozen=True)
class NewEvent:
    """An event as a worker sends it. ``number`` counts from 0 within the attempt: what is sent again is stored once."""

    number: int
    time: datetime
    kind: str
    body: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class EventRecord:
    """An event of a job. ``id`` grows, and is never given twice; ``number`` is None for what the queue itself says."""

    id: int
    job_id: str
    attempt: int
    number: int | None
    time: datetime
    kind: str
    body: Mapping[str, Any]


@dataclass(frozen=True)
class FileRecord:
    """A file in the folder of a job: ``path`` relative, with ``/``; the content under its SHA-256 in the store."""

    path: str
    sha256: str
    bytes: int


@dataclass(frozen=True)
class UploadRecord:
    """A file that a user sends in chunks.

    Attributes:
        bytes: how many it will have; ``received`` are there.
        sha256: what the sender said, if anything; once ``done``, what it is.
        state: ``open``, ``done`` (checked, and in the store), or ``refused``.
    """

    id: str
    project: str
    name: str
    kind: str
    bytes: int
    received: int
    sha256: str | None
    state: str
    created_at: datetime
    submitted_by: str


@dataclass(frozen=True)
class Claim:
    """A job that a worker got, with what it needs to begin or to go on.

    Attributes:
        token: proves the lease; every write carries it.
        lease_seconds: how long the lease lives without a renewal.
        files: of its folder, as its last snapshot left them.
        uploads: what its recipe reads.
        parent_files: of the job it starts from.
    """

    job: JobRecord
    token: str
    lease_seconds: float
    files: tuple[FileRecord, ...] = ()
    uploads: tuple[UploadRecord, ...] = ()
    parent_files: tuple[FileRecord, ...] = ()


@dataclass(frozen=True)
class WorkerRecord:
    """A worker that was heard of. ``job_id`` is what it works on, if anything."""

    name: str
    labels: tuple[str, ...]
    version: str
    seen_at: datetime
    job_id: str | None
