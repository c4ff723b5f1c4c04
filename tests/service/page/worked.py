"""A worker of tests: takes jobs, and says and leaves what a test wants."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from typing import Any

from compressor.report import Report
from compressor.search.front import Candidate, Front
from compressor.service.records import Claim, FileRecord, JobRecord, NewEvent, NewJob
from compressor.service.services import Services
from tests.service.clocks import FakeClock

RECIPE: dict[str, Any] = {"model": "resnet20_cifar", "weights": "none", "budgets": {"flops": "50%"}}

THREE = {"flops-25pct": (1e7, 0.61), "flops-50pct": (2e7, 0.72), "flops-75pct": (3e7, 0.8)}


class Worked:
    """Works on jobs of some services, without torch."""

    def __init__(self, services: Services) -> None:
        self.services = services
        self._number = 0

    def submit(self, name: str = "", recipe: Mapping[str, Any] | None = None, **more: Any) -> JobRecord:
        """A job in the queue."""
        if isinstance(self.services.clock, FakeClock):
            self.services.clock.advance(0.002)  # ids of one millisecond are in no order
        said = {**RECIPE, **(recipe or {})}
        job = NewJob(project="default", recipe=said, recipe_text=json.dumps(said, indent=2), name=name, **more)
        return self.services.jobs.submit(job)

    def claim(self) -> Claim:
        """The next job."""
        found = self.services.leases.claim("test-worker", ["code"])
        assert found is not None, "there is no job to take"
        return found

    def say(self, claim: Claim, *events: tuple[str, Mapping[str, Any]]) -> None:
        """Events of a job."""
        now = self.services.clock.now()
        told = []
        for kind, body in events:
            told.append(NewEvent(self._number, now, kind, dict(body)))
            self._number += 1
        self.services.events.append(claim.job.id, claim.token, told)

    def leave(self, claim: Claim, **files: bytes) -> None:
        """All files of a job; in names ``__`` is a dot, and ``___`` a slash."""
        self.leave_all(claim, {name.replace("___", "/").replace("__", "."): data for name, data in files.items()})

    def leave_all(self, claim: Claim, files: Mapping[str, bytes]) -> None:
        """All files of a job, by path."""
        records = []
        for path, data in files.items():
            sha256, size = self.services.blobs.put(io.BytesIO(data))
            records.append(FileRecord(path, sha256, size))
        assert self.services.files.snapshot(claim.job.id, claim.token, records) == []

    def end(self, claim: Claim, state: str = "done", error: Mapping[str, Any] | None = None) -> None:
        """The job is over."""
        self.services.leases.end(claim.job.id, claim.token, state, error)

    def done(self, report: Report, name: str = "", recipe: Mapping[str, Any] | None = None) -> JobRecord:
        """A job that is done and has a report."""
        self.submit(name, recipe)
        claim = self.claim()
        self.leave_all(claim, {"report.json": json.dumps(report.to_json()).encode(), "model.onnx": b"onnx"})
        self.end(claim)
        return self.services.jobs.get(claim.job.id)

    def swept(self, name: str = "a sweep", rows: Mapping[str, tuple[float, float]] = THREE) -> JobRecord:
        """A sweep that is done; ``rows`` are multiply-adds and scores of its points by name."""
        candidates = [Candidate(n, {"flops": c, "params": c / 100}, s, n) for n, (c, s) in rows.items()]
        front = Front(candidates, {"flops": 4e7, "params": 4e5}, compared=["flops"])
        document = {
            "schema_version": 1,
            "kind": "sweep",
            "model": "resnet20_cifar",
            "data": "digits",
            "metric": "top-1 accuracy",
            "before": 0.85,
            "units": {"flops": "macs", "params": "params"},
            "finished": True,
            "searches": [],
            "points": front.points,
            "fronts": [{"target": None, **front.to_json(lambda folder: folder)}],
        }
        self.submit(name, {"data": "digits", "budgets": {"flops": ["25%", "50%", "75%"]}}, kind="sweep")
        claim = self.claim()
        self.leave_all(claim, {"front.json": json.dumps(document).encode()})
        self.end(claim)
        return self.services.jobs.get(claim.job.id)
