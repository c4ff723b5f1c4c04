"""What keeps the queue fast with many jobs: few statements, and indexes for each."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from sqlalchemy import event, text

from compressor.service.records import NewEvent
from compressor.service.services import Services
from tests.service.queue.submitting import claim, submit


@contextmanager
def statements(services: Services) -> Iterator[list[tuple[str, object]]]:
    """What is sent to the database, but for the beginnings and ends of transactions."""
    seen: list[tuple[str, object]] = []

    def note(_: object, cursor: object, statement: str, parameters: object, *rest: object) -> None:
        if not statement.startswith("BEGIN"):
            seen.append((statement, parameters))

    event.listen(services.database._engine, "before_cursor_execute", note)
    try:
        yield seen
    finally:
        event.remove(services.database._engine, "before_cursor_execute", note)


def test_statements_do_not_grow_with_jobs(services: Services) -> None:
    for number in range(30):
        submit(services, name=str(number), project=f"p{number % 3}")
    lease = claim(services)
    services.events.append(
        lease.job.id, lease.token, [NewEvent(number, services.clock.now(), "Step") for number in range(200)]
    )
    for act, most in (
        (lambda: services.jobs.list(limit=30), 1),
        (lambda: services.jobs.list("p1", limit=30, query="1"), 1),
        (lambda: services.jobs.list("p1", ("queued", "running"), limit=30), 2),
        (lambda: services.jobs.counts(), 1),
        (lambda: services.jobs.get(lease.job.id), 1),
        (lambda: services.events.after(lease.job.id, 0, 500), 1),
        (lambda: services.leases.renew(lease.job.id, lease.token), 1),
        (lambda: submit(services, project="p1"), 3),
        (lambda: claim(services), 6),
        (lambda: services.leases.expire(), 1),
    ):
        with statements(services) as seen:
            act()
        assert len(seen) <= most, seen


def test_lists_do_not_read_recipes(services: Services) -> None:
    submit(services)
    with statements(services) as seen:
        services.jobs.list()
    assert "recipe" not in seen[0][0]


@pytest.mark.parametrize("labels", [(), ("code", "gpu")])
def test_sqlite_looks_up_and_does_not_sort(sqlite_services: Services, labels: tuple[str, ...]) -> None:
    services = sqlite_services
    for number in range(20):
        submit(services, name=str(number))
    lease = claim(services, labels=labels)
    with statements(services) as seen:
        services.jobs.list(limit=5)
        services.jobs.list("default", limit=5)
        services.jobs.list("default", ("queued",), limit=5)
        services.jobs.list(None, ("queued", "running"), limit=5)
        services.events.after(lease.job.id)
        services.leases.expire()
        claim(services, labels=labels)
    assert seen
    for statement, parameters in seen:
        if not statement.startswith(("SELECT", "UPDATE jobs")):
            continue
        with services.database.begin(write=False) as session:
            connection = session.connection().connection.cursor()
            connection.execute(f"EXPLAIN QUERY PLAN {statement}", parameters)
            plan = [row[3] for row in connection.fetchall()]
        told = f"{statement}: {plan}"
        assert not any("TEMP B-TREE" in step for step in plan), told
        whole = [step for step in plan if step.startswith("SCAN") and "INDEX" not in step]
        assert whole in ([], ["SCAN CONSTANT ROW"]), told


def test_postgres_takes_the_index_of_queued_jobs(make_services: object, postgres_url: str) -> None:
    services: Services = make_services(postgres_url)  # type: ignore[operator]
    for number in range(20):
        submit(services, name=str(number))
    with statements(services) as seen:
        claim(services)
    statement, parameters = next(one for one in seen if one[0].startswith("UPDATE jobs"))
    assert "FOR UPDATE" in statement
    assert "SKIP LOCKED" in statement
    with services.database.begin(write=False) as session:
        session.execute(text("SET LOCAL enable_seqscan = off"))
        plan = session.connection().exec_driver_sql(f"EXPLAIN {statement}", parameters).scalars().all()
    assert any("ix_jobs_queue" in step for step in plan), plan
