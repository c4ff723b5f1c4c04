"""The tables of the queue, the artefacts and the keys. Those of devices stand in ``service/devices/tables.py``."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import BigInteger, ForeignKey, Index, Text, UniqueConstraint, text
from sqlalchemy.orm import Mapped, mapped_column

from compressor.service.database.base import Base, BigId
from compressor.service.records import QUEUED, RUNNING


class ProjectRow(Base):
    """Keeps teams' jobs apart. Made when something is first put into it."""

    __tablename__ = "projects"
    name: Mapped[str] = mapped_column(Text, primary_key=True)
    created_at: Mapped[datetime]


class ApiKeyRow(Base):
    """A key, of which only the hash is kept. ``project`` NULL: all projects."""

    __tablename__ = "api_keys"
    id: Mapped[str] = mapped_column(Text, primary_key=True)
    name: Mapped[str] = mapped_column(Text)
    project: Mapped[str | None] = mapped_column(Text)
    scopes: Mapped[list[str]]
    hash: Mapped[str] = mapped_column(Text, unique=True)
    created_at: Mapped[datetime]
    revoked_at: Mapped[datetime | None]
    used_at: Mapped[datetime | None]


class SessionRow(Base):
    """Somebody who is signed in on the page; ``hash`` is that of the cookie."""

    __tablename__ = "sessions"
    hash: Mapped[str] = mapped_column(Text, primary_key=True)
    key_id: Mapped[str | None] = mapped_column(Text, ForeignKey("api_keys.id", ondelete="CASCADE"), index=True)
    user: Mapped[str] = mapped_column(Text)
    project: Mapped[str | None] = mapped_column(Text)
    scopes: Mapped[list[str]]
    created_at: Mapped[datetime]
    expires_at: Mapped[datetime] = mapped_column(index=True)
    csrf: Mapped[str] = mapped_column(Text)


class AuditRow(Base):
    """Who did what."""

    __tablename__ = "audit"
    __table_args__ = {"sqlite_autoincrement": True}  # noqa: RUF012
    id: Mapped[int] = mapped_column(BigId, primary_key=True, autoincrement=True)
    time: Mapped[datetime] = mapped_column(index=True)
    who: Mapped[str] = mapped_column(Text)
    action: Mapped[str] = mapped_column(Text)
    subject: Mapped[str | None] = mapped_column(Text)
    project: Mapped[str | None] = mapped_column(Text)
    details: Mapped[dict[str, Any]]


class JobRow(Base):
    """A job, from its submission until it is deleted. Once it has ended nothing changes it but a retry.

    ``lease_token`` stays after the end, so that a worker that did not hear the answer may say it again.
    """

    __tablename__ = "jobs"
    id: Mapped[str] = mapped_column(Text, primary_key=True)
    project: Mapped[str] = mapped_column(Text, ForeignKey("projects.name"))
    name: Mapped[str] = mapped_column(Text)
    kind: Mapped[str] = mapped_column(Text)
    recipe: Mapped[dict[str, Any]]
    recipe_text: Mapped[str] = mapped_column(Text)
    state: Mapped[str] = mapped_column(Text)
    priority: Mapped[int]
    labels: Mapped[list[str]]
    submitted_by: Mapped[str] = mapped_column(Text)
    idempotency_key: Mapped[str | None] = mapped_column(Text)
    created_at: Mapped[datetime]
    started_at: Mapped[datetime | None]
    ended_at: Mapped[datetime | None]
    attempt: Mapped[int]
    deaths: Mapped[int]
    not_before: Mapped[datetime | None]
    worker: Mapped[str | None] = mapped_column(Text)
    lease_token: Mapped[str | None] = mapped_column(Text)
    lease_expires_at: Mapped[datetime | None]
    cancel_requested: Mapped[bool]
    stage: Mapped[str | None] = mapped_column(Text)
    done: Mapped[int | None] = mapped_column(BigInteger)
    total: Mapped[int | None] = mapped_column(BigInteger)
    waiting_for: Mapped[str | None] = mapped_column(Text)
    error: Mapped[dict[str, Any] | None]
    parent: Mapped[str | None] = mapped_column(Text)
    uploads: Mapped[list[str]]


_QUEUED, _RUNNING = text(f"state = '{QUEUED}'"), text(f"state = '{RUNNING}'")
_JOB = JobRow.__table__.c
# The state, always the same there, lets SQLite see that nothing is left to sort.
Index(
    "ix_jobs_queue",
    _JOB.state,
    _JOB.priority.desc(),
    _JOB.created_at,
    _JOB.id,
    sqlite_where=_QUEUED,
    postgresql_where=_QUEUED,
)
Index("ix_jobs_running", _JOB.project, _JOB.id, sqlite_where=_RUNNING, postgresql_where=_RUNNING)
Index("ix_jobs_project_id", _JOB.project, _JOB.id)
Index("ix_jobs_state_id", _JOB.state, _JOB.id)
Index("ix_jobs_project_state_id", _JOB.project, _JOB.state, _JOB.id)
Index("ix_jobs_parent", _JOB.parent)
Index("uq_jobs_project_idempotency_key", _JOB.project, _JOB.idempotency_key, unique=True)  # NULLs are all different


class EventRow(Base):
    """What happened in a job. ``number`` is the worker's, NULL for what the queue itself says."""

    __tablename__ = "job_events"
    __table_args__ = (
        UniqueConstraint("job_id", "attempt", "number"),
        Index("ix_job_events_job_id_id", "job_id", "id"),
        {"sqlite_autoincrement": True},
    )
    id: Mapped[int] = mapped_column(BigId, primary_key=True, autoincrement=True)
    job_id: Mapped[str] = mapped_column(Text, ForeignKey("jobs.id", ondelete="CASCADE"))
    attempt: Mapped[int]
    number: Mapped[int | None]
    time: Mapped[datetime]
    kind: Mapped[str] = mapped_column(Text)
    body: Mapped[dict[str, Any]]


class BlobRow(Base):
    """A content in the store. ``created_at`` is when it was last put, asked after or referred to."""

    __tablename__ = "blobs"
    sha256: Mapped[str] = mapped_column(Text, primary_key=True)
    bytes: Mapped[int] = mapped_column(BigInteger)
    created_at: Mapped[datetime] = mapped_column(index=True)


class FileRow(Base):
    """A file in the folder of a job, as of its last snapshot."""

    __tablename__ = "job_files"
    job_id: Mapped[str] = mapped_column(Text, ForeignKey("jobs.id", ondelete="CASCADE"), primary_key=True)
    path: Mapped[str] = mapped_column(Text, primary_key=True)
    sha256: Mapped[str] = mapped_column(Text, ForeignKey("blobs.sha256"), index=True)
    bytes: Mapped[int] = mapped_column(BigInteger)


class UploadRow(Base):
    """A file that a user sends."""

    __tablename__ = "uploads"
    id: Mapped[str] = mapped_column(Text, primary_key=True)
    project: Mapped[str] = mapped_column(Text, ForeignKey("projects.name"), index=True)
    name: Mapped[str] = mapped_column(Text)
    kind: Mapped[str] = mapped_column(Text)
    bytes: Mapped[int] = mapped_column(BigInteger)
    received: Mapped[int] = mapped_column(BigInteger)
    sha256: Mapped[str | None] = mapped_column(Text, index=True)
    state: Mapped[str] = mapped_column(Text)
    created_at: Mapped[datetime]
    submitted_by: Mapped[str] = mapped_column(Text)


class WorkerRow(Base):
    """A worker that was heard of."""

    __tablename__ = "workers"
    name: Mapped[str] = mapped_column(Text, primary_key=True)
    labels: Mapped[list[str]]
    version: Mapped[str] = mapped_column(Text)
    seen_at: Mapped[datetime]
    job_id: Mapped[str | None] = mapped_column(Text)
