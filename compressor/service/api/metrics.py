"""Metrics for Prometheus, in a registry of the app's own."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

from fastapi import APIRouter, FastAPI, Request
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector
from starlette.responses import Response

from compressor.service.api.describing import answers
from compressor.service.api.targets import SEEN_SECONDS, device_names, present_labels
from compressor.service.api.threads import in_thread
from compressor.service.errors import DatabaseAwayError
from compressor.service.records import JobRecord
from compressor.service.services import Services

router = APIRouter(tags=["operations"])

_LATENCY = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0)
_LONG = (1.0, 5.0, 15.0, 60.0, 300.0, 900.0, 3600.0, 4 * 3600.0, 24 * 3600.0)
_KEEP_SECONDS = 2.0


class Metrics:
    """What is counted as it happens. Times are in seconds."""

    def __init__(self, app: FastAPI) -> None:
        self.registry = CollectorRegistry()
        self.latency = Histogram(
            "compressor_http_seconds",
            "Until an answer begins; of streams and long polls, too.",
            ("method", "route", "status"),
            buckets=_LATENCY,
            registry=self.registry,
        )
        self._wait = Histogram(
            "compressor_queue_wait_seconds",
            "From a job's submission to its first worker.",
            buckets=_LONG,
            registry=self.registry,
        )
        self._ran = Histogram(
            "compressor_job_seconds",
            "From a job's first worker to its end.",
            ("kind", "state"),
            buckets=_LONG,
            registry=self.registry,
        )
        self._submitted = Counter(
            "compressor_jobs_ended", "Jobs that ended, by kind and state.", ("kind", "state"), registry=self.registry
        )
        self.registry.register(_Now(app))

    def claimed(self, job: JobRecord) -> None:
        """A worker took a job."""
        if job.attempt == 1 and job.started_at is not None:
            self._wait.observe(max(0.0, (job.started_at - job.created_at).total_seconds()))

    def ended(self, job: JobRecord) -> None:
        """A job ended."""
        self._submitted.labels(job.kind, job.state).inc()
        if job.started_at is not None and job.ended_at is not None:
            seconds = (job.ended_at - job.started_at).total_seconds()
            self._ran.labels(job.kind, job.state).observe(max(0.0, seconds))


class _Now(Collector):
    """What is so just now: asked of the database, at most every few seconds."""

    def __init__(self, app: FastAPI) -> None:
        self._app = app
        self._lock = threading.Lock()
        self._found: list[Metric] = []
        self._until = 0.0

    def describe(self) -> list[Metric]:
        """Nothing is asked when this is registered."""
        return []

    def collect(self) -> Iterator[Metric]:
        with self._lock:
            if time.monotonic() >= self._until:
                with suppress(DatabaseAwayError):  # what is known stays
                    self._found = self._look()
                self._until = time.monotonic() + _KEEP_SECONDS
            found = list(self._found)
        yield GaugeMetricFamily(
            "compressor_watchers", "Streams of events that are open.", value=self._app.state.watchers.count
        )
        yield from found

    def _look(self) -> list[Metric]:
        services: Services = self._app.state.services
        jobs = GaugeMetricFamily("compressor_jobs", "Jobs by state.", labels=["state"])
        for state, count in services.jobs.counts().items():
            jobs.add_metric([state], count)
        workers = services.workers.list(SEEN_SECONDS)
        seen = GaugeMetricFamily("compressor_workers", "Workers that were heard of lately.", value=len(workers))
        busy = sum(each.job_id is not None for each in workers)
        working = GaugeMetricFamily("compressor_workers_busy", "Those of them that have a job.", value=busy)
        devices = GaugeMetricFamily("compressor_devices", "Devices, by whether they are here.", labels=["here"])
        known, here = device_names(self._app), present_labels(self._app)
        devices.add_metric(["yes"], len(here))
        devices.add_metric(["no"], max(0, len(known) - len(here)))
        return [jobs, seen, working, devices]


@router.get(
    "/metrics",
    summary="Metrics for Prometheus",
    response_class=Response,
    responses={
        200: {
            "description": "Text.",
            "content": {
                "text/plain": {"schema": {"type": "string"}, "example": 'compressor_jobs{state="queued"} 3.0\n'}
            },
        },
        **answers(),
    },
)
async def metrics(request: Request) -> Response:
    """Jobs by state, how long they wait and run, latencies by route, watchers, workers, devices."""
    text: Any = await in_thread(generate_latest, request.app.state.metrics.registry)
    return Response(text, media_type=CONTENT_TYPE_LATEST)
