"""What the queue hands out as JSON documents."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from compressor.service.records import EventRecord, FileRecord, JobRecord, JobSummary, UploadRecord, WorkerRecord
from compressor.storage.codec import encode


def time_text(time: datetime | None) -> str | None:
    """ISO 8601 in UTC, to the millisecond."""
    return None if time is None else time.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def job_document(job: JobSummary) -> dict[str, Any]:
    """A job as lists show it."""
    progress = None if job.stage is None else {"stage": job.stage, "done": job.done, "total": job.total}
    return {
        "id": job.id,
        "project": job.project,
        "name": job.name,
        "kind": job.kind,
        "state": job.state,
        "priority": job.priority,
        "labels": list(job.labels),
        "submitted_by": job.submitted_by,
        "created_at": time_text(job.created_at),
        "started_at": time_text(job.started_at),
        "ended_at": time_text(job.ended_at),
        "attempt": job.attempt,
        "deaths": job.deaths,
        "worker": job.worker,
        "cancel_requested": job.cancel_requested,
        "stage": job.stage,
        "progress": progress,
        "waiting_for": job.waiting_for,
        "error": None if job.error is None else dict(job.error),
        "parent": job.parent,
    }


def whole_job_document(job: JobRecord, costs: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """All of a job; ``costs`` as they were decided, where that is known."""
    return {
        **job_document(job),
        "costs": None if costs is None else dict(costs),
        "recipe": dict(job.recipe),
        "recipe_text": job.recipe_text,
        "uploads": list(job.uploads),
    }


def event_document(event: EventRecord) -> dict[str, Any]:
    """An event: ``id``, ``event`` (its kind), and what ``event_data`` has."""
    return {"id": event.id, "event": event.kind, **event_data(event)}


def event_data(event: EventRecord) -> dict[str, Any]:
    """``time``, ``attempt``, and what it says."""
    return {"time": time_text(event.time), "attempt": event.attempt, **encode(dict(event.body))}


def file_document(file: FileRecord) -> dict[str, Any]:
    """A file of a job."""
    return {"path": file.path, "sha256": file.sha256, "bytes": file.bytes}


def upload_document(upload: UploadRecord) -> dict[str, Any]:
    """An upload; ``offset`` is where the next chunk begins."""
    return {
        "id": upload.id,
        "project": upload.project,
        "name": upload.name,
        "kind": upload.kind,
        "bytes": upload.bytes,
        "offset": upload.received,
        "sha256": upload.sha256,
        "state": upload.state,
        "created_at": time_text(upload.created_at),
    }


def worker_document(worker: WorkerRecord) -> dict[str, Any]:
    """A worker that was heard of."""
    return {
        "name": worker.name,
        "labels": list(worker.labels),
        "version": worker.version,
        "seen_at": time_text(worker.seen_at),
        "job": worker.job_id,
    }
