"""What the network of a job costs, once that is decided."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

from compressor.errors import CompressorError
from compressor.service.artefacts.blobs import Blobs
from compressor.service.records import DONE, QUEUED, JobRecord
from compressor.service.services import Services
from compressor.storage.reading import SMALL, parse_json

REPORT = "report.json"
DECISION = "Decision"


def costs_of(services: Services, job: JobRecord) -> tuple[dict[str, Any] | None, int]:
    """By name ``value``, ``original`` and ``unit`` of each cost, and how many files the job has.

    Of a job that is done they are in its report, before that in the event of the decision, which has the value alone.
    """
    if job.state == QUEUED and not job.attempt:
        return None, 0
    files = services.files.list(job.id)
    report = next((file for file in files if file.path == REPORT), None)
    if job.state == DONE and report is not None:
        try:
            return dict(_of_report(services.blobs, report.sha256)), len(files)
        except (CompressorError, ValueError, KeyError, TypeError):
            pass  # a worker may write anything; what it decided on is in the event, too
    decided = services.events.latest(job.id, [DECISION])
    said = decided[0].body.get("costs") if decided else None
    if not isinstance(said, dict):
        return None, len(files)
    return {str(name): {"value": value, "original": None, "unit": None} for name, value in said.items()}, len(files)


@lru_cache(maxsize=512)
def _of_report(blobs: Blobs, sha256: str) -> dict[str, Any]:
    with blobs.open(sha256) as stream:
        report = parse_json(stream.read(SMALL.bytes + 1))
    found = {}
    for each in [*report.get("costs", ()), *({**one, "name": one["cost"]} for one in report.get("budgets", ()))]:
        found[str(each["name"])] = {
            "value": float(each["reached"]),
            "original": float(each["original"]),
            "unit": str(each["unit"]),
        }
    return found
