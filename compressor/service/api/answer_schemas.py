"""What OpenAPI shows of answers that are not about jobs alone: the models are never filled, the routes write JSON."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Literal

from pydantic import BaseModel, Field


class Problem(BaseModel):
    """What every error is answered with (RFC 9457)."""

    type: str
    title: str
    status: int
    detail: str = Field(description="What was found, what was expected, and what to do.")
    exit_code: int | None = Field(default=None, description="The class that the command line has.")
    key: str | None = Field(default=None, description="Of the recipe or the body.")
    line: int | None = Field(default=None, description="Of the recipe.")


class Status(BaseModel):
    """Whether a server does its work."""

    status: str
    version: str | None = None


class File(BaseModel):
    """A file of a job; its content is found by its hash."""

    path: str
    sha256: str
    bytes: int


class FileList(BaseModel):
    """The files of a job."""

    files: list[File]


class Upload(BaseModel):
    """A file that is sent, or has been. The next chunk begins at ``offset``."""

    id: str
    project: str
    name: str
    kind: Literal["weights", "arrays", "images"]
    bytes: int
    offset: int
    sha256: str | None
    state: Literal["open", "done", "refused"]
    created_at: datetime


class UploadList(BaseModel):
    """Uploads, the newest first."""

    uploads: list[Upload]


class Stored(BaseModel):
    """A content that is there."""

    sha256: str
    bytes: int


class ClaimedJob(BaseModel):
    """What a worker has to know of its job."""

    id: str
    kind: Literal["compress", "sweep", "pick"]
    recipe: dict[str, Any]
    project: str
    name: str
    attempt: int
    parent: str | None


class Claimed(BaseModel):
    """A job for a worker. ``files`` is what the attempt before left, ``parent_files`` what it starts from."""

    job: ClaimedJob
    token: str
    lease_seconds: float
    files: list[File]
    uploads: list[Upload]
    parent_files: list[File]


class Renewed(BaseModel):
    """Whether the work is to be given up."""

    cancel: bool


class LastEvent(BaseModel):
    """The id of the job's last event."""

    last: int


class Taken(BaseModel):
    """A snapshot was taken: nothing is missing."""

    missing: list[str]


class JobState(BaseModel):
    """A job, and its state now."""

    id: str
    state: Literal["queued", "running", "done", "failed", "cancelled"]


class CostRange(BaseModel):
    """A cost of the original, and the least that it can be brought to."""

    original: float
    smallest: float | None
    unit: str


class Inspected(BaseModel):
    """What a model costs, and what of it can change. Lists are cut at 500 rows; ``counts`` has their lengths."""

    model: str
    input_shape: list[int]
    costs: dict[str, CostRange]
    groups: list[dict[str, Any]]
    blocks: list[dict[str, Any]]
    choices: list[dict[str, Any]]
    fixed: list[dict[str, Any]]
    layers: list[dict[str, Any]]
    counts: dict[str, int]


class ModelList(BaseModel):
    """Names for ``model``."""

    models: list[str]


class TargetName(BaseModel):
    """A runtime, or a device and whether it is here."""

    target: str
    kind: Literal["runtime", "device"]
    here: bool | None


class TargetList(BaseModel):
    """Names for ``target``."""

    targets: list[TargetName]


class DatasetName(BaseModel):
    """A data set, and whether this server registered it."""

    name: str
    registered: bool


class DatasetList(BaseModel):
    """Names for ``data``."""

    datasets: list[DatasetName]


class WorkerSeen(BaseModel):
    """A worker that was heard of. Its job is not told to keys of one project."""

    name: str
    labels: list[str]
    version: str
    seen_at: datetime
    job: str | None


class WorkerList(BaseModel):
    """Workers by name."""

    workers: list[WorkerSeen]


class AuditEntry(BaseModel):
    """Who did what to which subject."""

    id: int
    time: datetime
    who: str
    action: str
    subject: str | None
    project: str | None
    details: dict[str, Any]


class AuditList(BaseModel):
    """Entries of the audit log, the latest first."""

    entries: list[AuditEntry]
