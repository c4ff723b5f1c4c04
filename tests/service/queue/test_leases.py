"""Leases: who has which job, and what becomes of jobs whose worker is silent."""

from __future__ import annotations

import pytest

from compressor.service.errors import ConflictError, DatabaseAwayError, NotFoundError, RefusedError, StaleLeaseError
from compressor.service.records import CANCELLED, DONE, FAILED, QUEUED, RUNNING, NewEvent
from compressor.service.services import Services
from tests.service.clocks import FakeClock
from tests.service.conftest import ServicesMaker
from tests.service.queue.submitting import claim, silence, submit


def test_a_claim_has_all_that_a_worker_needs(services: Services) -> None:
    parent = submit(services)
    lease = claim(services)
    services.leases.end(parent.id, lease.token, DONE)
    job = submit(services, parent=parent.id)
    lease = claim(services, "w7", ("code",))
    assert (lease.job.id, lease.job.state, lease.job.worker, lease.job.attempt) == (job.id, RUNNING, "w7", 1)
    assert (lease.lease_seconds, lease.files, lease.uploads, lease.parent_files) == (30.0, (), (), ())
    assert lease.job.started_at is not None
    assert services.leases.claim("w8") is None
    (worker,) = services.workers.list(within_seconds=10)[-1:]
    assert (worker.name, worker.labels, worker.job_id) == ("w7", ("code",), job.id)


def test_labels_decide_who_may(services: Services) -> None:
    job = submit(services, labels=("code", "device:jetson-1"))
    for labels in ((), ("code",), ("device:jetson-1", "gpu"), ("code'--",)):
        assert services.leases.claim("w", labels) is None
    other = submit(services)
    assert claim(services, labels=()).job.id == other.id
    assert claim(services, labels=("gpu", "device:jetson-1", "code")).job.id == job.id


def test_a_project_runs_no_more_than_it_may(make_services: ServicesMaker, database_url: str) -> None:
    services = make_services(database_url, most_running=1)
    submit(services, project="a", priority=5), submit(services, project="a", priority=5)
    b = submit(services, project="b")
    first = claim(services)
    assert claim(services).job.id == b.id
    assert services.leases.claim("w") is None
    services.leases.end(first.job.id, first.token, DONE)
    assert claim(services).job.project == "a"


def test_only_the_present_lease_may_write(services: Services, clock: FakeClock) -> None:
    job = submit(services)
    old = claim(services)
    assert [taken.id for taken in silence(services, clock, 31)] == [job.id]
    new = claim(services, "w2")
    event = NewEvent(0, clock.now(), "Message")
    for token in (old.token, "", "x", "\0\ud800"):
        for write in (
            lambda token=token: services.leases.renew(job.id, token),
            lambda token=token: services.leases.end(job.id, token, DONE),
            lambda token=token: services.leases.release(job.id, token),
            lambda token=token: services.leases.check(job.id, token),
            lambda token=token: services.events.append(job.id, token, [event]),
            lambda token=token: services.files.snapshot(job.id, token, []),
        ):
            with pytest.raises(StaleLeaseError):
                write()
    services.leases.check(job.id, new.token)
    assert services.leases.renew(job.id, new.token, stage="search", done=3, total=10, waiting_for="a device") is False
    found = services.jobs.get(job.id)
    assert (found.stage, found.done, found.total, found.waiting_for) == ("search", 3, 10, "a device")
    with pytest.raises(NotFoundError):
        services.leases.renew("nowhere", new.token)


def test_an_end_may_be_said_again_but_not_another(services: Services) -> None:
    job = submit(services)
    lease = claim(services)
    first = services.leases.end(job.id, lease.token, DONE)
    assert services.leases.end(job.id, lease.token, DONE) == first
    with pytest.raises(StaleLeaseError):
        services.leases.end(job.id, lease.token, FAILED)
    with pytest.raises(StaleLeaseError):
        services.events.append(job.id, lease.token, [])
    with pytest.raises(RefusedError, match="ends as"):
        services.leases.end(job.id, lease.token, QUEUED)
    assert [event.kind for event in services.events.after(job.id)].count("end") == 1
    with pytest.raises(ConflictError):
        services.jobs.retry(job.id)


def test_releasing_is_no_death(services: Services) -> None:
    job = submit(services)
    lease = claim(services)
    released = services.leases.release(job.id, lease.token)
    assert (released.state, released.deaths) == (QUEUED, 0)
    lease = claim(services)
    services.jobs.cancel(job.id)
    assert services.leases.release(job.id, lease.token).state == CANCELLED


def test_a_job_that_workers_die_of_fails(services: Services, clock: FakeClock) -> None:
    job = submit(services)
    for deaths in (1, 2, 3):
        lease = claim(services)
        (taken,) = silence(services, clock, 31)
        assert taken.deaths == deaths
        if deaths == 2:
            assert services.leases.claim("w") is None, "it waits before it kills the next"
            clock.advance(60)
        del lease
    assert taken.state == FAILED
    assert "died 3 times" in taken.error["text"]
    assert services.events.after(job.id)[-1].kind == "end"
    assert services.jobs.retry(job.id).deaths == 0


def test_a_cancelled_job_whose_worker_died_is_cancelled(services: Services, clock: FakeClock) -> None:
    job = submit(services)
    claim(services)
    services.jobs.cancel(job.id)
    assert [taken.state for taken in silence(services, clock, 31)] == [CANCELLED]
    assert services.jobs.get(job.id).state == CANCELLED


def test_renewals_keep_a_job(services: Services, clock: FakeClock) -> None:
    submit(services)
    lease = claim(services)
    for _ in range(10):
        clock.advance(20)
        services.leases.renew(lease.job.id, lease.token)
        assert services.leases.expire() == []


def test_a_clock_that_jumps_ahead_kills_nobody(services: Services, clock: FakeClock) -> None:
    submit(services)
    lease = claim(services)
    services.leases.expire()
    clock.jump(365 * 86400)
    assert services.leases.expire() == []
    clock.advance(20)
    assert services.leases.expire() == []
    services.leases.renew(lease.job.id, lease.token)
    clock.advance(29)
    assert services.leases.expire() == []


def test_a_clock_that_is_set_back_keeps_no_dead_worker(services: Services, clock: FakeClock) -> None:
    job = submit(services)
    claim(services)
    services.leases.expire()
    clock.jump(-365 * 86400)
    clock.advance(31)
    assert services.leases.expire() == [], "its time is a year ahead, and one silence may be too little to tell"
    clock.advance(31)
    assert [taken.id for taken in services.leases.expire()] == [job.id]


def test_a_clock_that_is_set_back_makes_no_job_wait(services: Services, clock: FakeClock) -> None:
    job = submit(services)
    for _ in range(2):
        claim(services)
        silence(services, clock, 31)
    assert services.leases.claim("w") is None, "it was the second to die, so there is a pause"
    clock.jump(-365 * 86400)
    assert claim(services).job.id == job.id


def test_a_server_that_was_away_gives_workers_time(services: Services, clock: FakeClock) -> None:
    submit(services)
    claim(services)
    services.leases.expire()
    clock.advance(100)
    services.leases.forget()
    assert services.leases.expire() == []


def test_leases_run_anew_after_the_database_was_away(
    services: Services, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    submit(services)
    claim(services)
    services.leases.expire()
    clock.advance(100)
    begin = services.database.begin

    def away(**_: object) -> object:
        raise DatabaseAwayError("away")

    monkeypatch.setattr(services.database, "begin", away)
    with pytest.raises(DatabaseAwayError):
        services.leases.expire()
    monkeypatch.setattr(services.database, "begin", begin)
    assert services.leases.expire() == []
