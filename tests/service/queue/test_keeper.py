"""The chores of a server."""

from __future__ import annotations

import threading

import pytest

from compressor.service.errors import DatabaseAwayError
from compressor.service.queue.keeper import Keeper
from tests.service.conftest import ServicesMaker
from tests.service.queue.submitting import claim, submit


def test_the_keeper_takes_jobs_from_silent_workers(
    make_services: ServicesMaker, sqlite_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    services = make_services(sqlite_url, real_clock=True, lease_seconds=0.3)
    job = submit(services)
    lease = claim(services)
    real, failed = services.leases.expire, []

    def failing() -> object:
        if len(failed) < 2:
            failed.append(1)
            raise DatabaseAwayError("away") if len(failed) == 1 else ValueError("a mistake")
        return real()

    monkeypatch.setattr(services.leases, "expire", failing)
    swept = threading.Event()
    monkeypatch.setattr(services.retention, "sweep", swept.set)
    with services.bell.listen(job.id) as ear, Keeper(services):
        assert ear.heard(30)
        assert swept.wait(30)
    assert failed == [1, 1], "it goes on after mistakes"
    assert services.jobs.get(job.id).state == "queued"
    assert claim(services).token != lease.token
