"""Where latency budgets can hold: runtimes of the workers, and devices on other machines."""

from __future__ import annotations

from collections.abc import Iterable

from fastapi import FastAPI

from compressor.service.devices.farm import devices_of
from compressor.service.recipes.policy import CODE
from compressor.service.records import QUEUED, JobSummary, WorkerRecord
from compressor.service.services import Services

DEVICE = "device:"
SEEN_SECONDS = 120.0
"""Workers that were silent for longer are taken to be gone."""


def runtime_names() -> list[str]:
    """Runtimes that workers may have."""
    from profilers.registry import names

    return names()


def device_names(app: FastAPI) -> list[str]:
    """Devices that have been here."""
    return [device.name for device in devices_of(app).list()]


def labels_of(app: FastAPI, targets: Iterable[str]) -> set[str]:
    """Labels that a job needs whose latency budgets hold on these targets."""
    devices = set(device_names(app)) if any(True for _ in targets) else set[str]()
    return {f"{DEVICE}{name}" for name in targets if name in devices}


def present_labels(app: FastAPI) -> set[str]:
    """Labels that every worker has just now: those of devices that are here."""
    return set(devices_of(app).labels())


class Waiting:
    """Says of queued jobs what they wait for, where it is more than their turn."""

    def __init__(self, app: FastAPI) -> None:
        self._app = app
        self._workers: list[WorkerRecord] | None = None

    def of(self, job: JobSummary) -> str | None:
        """A line, or None."""
        if job.state != QUEUED or not job.labels:
            return job.waiting_for
        said = devices_of(self._app).waiting_for(job.labels)
        if said is not None:
            return str(said)
        missing = [name for name in job.labels if not name.startswith(DEVICE) and not self._has(name)]
        if not missing:
            return job.waiting_for
        cure = "compress worker --allow-code starts one" if CODE in missing else f"compress worker --label {missing[0]}"
        return f"a worker with the label {missing[0]} ({cure})"

    def _has(self, label: str) -> bool:
        if self._workers is None:
            services: Services = self._app.state.services
            self._workers = services.workers.list(SEEN_SECONDS)
        return any(label in worker.labels for worker in self._workers)
