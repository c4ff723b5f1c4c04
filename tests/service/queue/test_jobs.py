"""Jobs as users see them."""

from __future__ import annotations

import pytest

from compressor.service.errors import ConflictError, NotFoundError, RefusedError, TooManyError
from compressor.service.records import CANCELLED, DONE, FAILED, QUEUED, RUNNING, STATES, NewEvent
from compressor.service.services import Services
from tests.service.clocks import FakeClock
from tests.service.conftest import ServicesMaker
from tests.service.queue.submitting import RECIPE, claim, submit


def test_a_job_is_what_was_submitted(services: Services) -> None:
    made = submit(
        services,
        name="café <b>",
        priority=3,
        labels=("code", "gpu"),
        submitted_by="anna",
        recipe={"zz": 1, "a": [1, None, 0.5], "b": {}},
    )
    found = services.jobs.get(made.id)
    assert found == made
    assert found.recipe == {"zz": 1, "a": [1, None, 0.5], "b": {}}
    assert list(found.recipe) == ["zz", "a", "b"], "in the order in which it was sent"
    assert (found.state, found.attempt, found.labels, found.created) == (QUEUED, 0, ("code", "gpu"), True)
    assert found.created_at.utcoffset() is not None
    assert services.jobs.counts() == {**dict.fromkeys(STATES, 0), QUEUED: 1}


def test_projects_do_not_see_each_other(services: Services) -> None:
    job = submit(services, project="a")
    submit(services, project="b")
    for act in (services.jobs.get, services.jobs.cancel, services.jobs.retry, services.jobs.delete):
        with pytest.raises(NotFoundError, match=job.id):
            act(job.id, "b")
    assert [found.id for found in services.jobs.list("a")] == [job.id]
    assert services.jobs.counts("a")[QUEUED] == 1
    with pytest.raises(NotFoundError):
        submit(services, project="b", parent=job.id)


def test_what_no_database_holds_is_refused_in_a_line(services: Services) -> None:
    for values in ({"name": "a\0b"}, {"name": "\ud800"}, {"name": "x" * 201}, {"project": ""}, {"priority": 10**12}):
        with pytest.raises(RefusedError):
            submit(services, **values)
    with pytest.raises(NotFoundError):
        services.jobs.get("\0\ud800")
    assert services.jobs.list(query="\0") == []
    made = submit(services, recipe={"text": "a\0b\ud800", "number": float("nan")})
    assert services.jobs.get(made.id).recipe == {"text": "a\ufffdb?", "number": None}


def test_lists_are_paged_and_searched(services: Services, clock: FakeClock) -> None:
    made = []
    for number in range(12):
        clock.advance(1)
        made.append(submit(services, name=f"net_{number}", submitted_by="anna" if number % 2 else "100%"))
    ids = [job.id for job in reversed(made)]
    first = services.jobs.list(limit=5)
    second = services.jobs.list(limit=50, before=first[-1].id)
    assert [job.id for job in (*first, *second)] == ids
    assert [job.name for job in services.jobs.list(query="NET_11")] == ["net_11"]
    assert [job.id for job in services.jobs.list(query=made[4].id)] == [made[4].id]
    assert len(services.jobs.list(query="%")) == 6  # as it is written
    assert len(services.jobs.list(query="net_")) == 12
    claim(services)
    services.jobs.cancel(made[5].id)
    found = services.jobs.list(states=(RUNNING, CANCELLED))
    assert [job.id for job in found] == [made[5].id, made[0].id]
    assert [job.id for job in services.jobs.list(states=(RUNNING, CANCELLED), limit=1)] == [made[5].id]
    with pytest.raises(RefusedError, match="unknown"):
        services.jobs.list(states=("gone",))


def test_an_idempotency_key_makes_one_job(services: Services) -> None:
    made = submit(services, idempotency_key="k")
    again = submit(services, idempotency_key="k")
    assert (again.id, again.created) == (made.id, False)
    with pytest.raises(ConflictError, match="another recipe"):
        submit(services, idempotency_key="k", recipe={"model": "other"})
    assert submit(services, idempotency_key="k", project="b").id != made.id
    assert submit(services).id != submit(services).id


def test_a_full_queue_takes_no_more(make_services: ServicesMaker, database_url: str) -> None:
    services = make_services(database_url, most_queued=2)
    first, _ = submit(services, idempotency_key="k"), submit(services)
    with pytest.raises(TooManyError, match="2 jobs"):
        submit(services)
    assert submit(services, idempotency_key="k").id == first.id, "what is there is still found"
    submit(services, project="b")
    services.jobs.cancel(first.id)
    submit(services)
    with pytest.raises(TooManyError):
        services.jobs.retry(first.id)
    claim(services)
    assert services.jobs.retry(first.id).state == QUEUED


def test_cancelling(services: Services) -> None:
    queued = submit(services, priority=-1)
    running = submit(services)
    lease = claim(services)
    assert services.jobs.cancel(queued.id).state == CANCELLED
    assert services.jobs.cancel(queued.id).state == CANCELLED
    asked = services.jobs.cancel(running.id)
    assert (asked.state, asked.cancel_requested) == (RUNNING, True)
    services.jobs.cancel(running.id)
    assert services.leases.renew(running.id, lease.token) is True
    services.leases.end(running.id, lease.token, CANCELLED)
    assert services.leases.claim("w2") is None
    kinds = [(event.kind, event.body["state"]) for event in services.events.after(running.id)]
    assert kinds == [("state", RUNNING), ("state", RUNNING), ("end", CANCELLED)]
    done = submit(services)
    lease = claim(services)
    services.leases.end(done.id, lease.token, DONE)
    with pytest.raises(ConflictError, match="is done"):
        services.jobs.cancel(done.id)


def test_retrying_goes_on_with_the_same_files(services: Services) -> None:
    job = submit(services)
    lease = claim(services)
    with pytest.raises(ConflictError, match="is running"):
        services.jobs.retry(job.id)
    services.leases.end(job.id, lease.token, FAILED, {"kind": "X", "text": "broke", "exit_code": 1})
    failed = services.jobs.get(job.id)
    assert failed.error == {"kind": "X", "text": "broke", "exit_code": 1}
    again = services.jobs.retry(job.id)
    assert (again.state, again.error, again.ended_at, again.deaths) == (QUEUED, None, None, 0)
    assert claim(services).job.attempt == 2


def test_priorities_decide_and_then_age(services: Services, clock: FakeClock) -> None:
    old, urgent, late = submit(services), submit(services, priority=5), submit(services)
    services.jobs.set_priority(late.id, 1)
    assert [claim(services).job.id for _ in range(3)] == [urgent.id, late.id, old.id]
    with pytest.raises(RefusedError):
        services.jobs.set_priority(old.id, 10**6)


def test_deleting_takes_events_and_files_along(services: Services) -> None:
    job = submit(services)
    with pytest.raises(ConflictError, match="cancel it first"):
        services.jobs.delete(job.id)
    lease = claim(services)
    services.events.append(job.id, lease.token, [NewEvent(0, services.clock.now(), "Message", {"text": "hi"})])
    services.leases.end(job.id, lease.token, DONE)
    child = submit(services, parent=job.id, kind="pick")
    with pytest.raises(ConflictError, match=child.id):
        services.jobs.delete(job.id)
    services.jobs.cancel(child.id)
    services.jobs.delete(job.id)
    assert services.events.after(job.id) == []
    with pytest.raises(NotFoundError):
        services.jobs.get(job.id)
    assert services.jobs.get(child.id).recipe == RECIPE
