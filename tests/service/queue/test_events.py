"""What happens in jobs."""

from __future__ import annotations

import asyncio
import threading
import tracemalloc

import pytest

from compressor.service.errors import RefusedError
from compressor.service.queue.bell import WORK, Bell
from compressor.service.records import DONE, NewEvent
from compressor.service.services import Services
from tests.service.queue.submitting import claim, silence, submit


def _steps(services: Services, first: int, count: int) -> list[NewEvent]:
    return [
        NewEvent(number, services.clock.now(), "Step", {"done": number, "values": {"loss": 0.5}})
        for number in range(first, first + count)
    ]


def test_events_come_in_order_and_once(services: Services) -> None:
    job = submit(services)
    lease = claim(services)
    batch = _steps(services, 0, 5)
    last = services.events.append(job.id, lease.token, batch)
    assert services.events.append(job.id, lease.token, [*batch[3:], *_steps(services, 5, 2)]) > last
    assert services.events.append(job.id, lease.token, []) == services.events.after(job.id)[-1].id
    found = services.events.after(job.id)
    assert [event.number for event in found] == [None, *range(7)]
    assert [event.id for event in found] == sorted({event.id for event in found})
    assert found[1].body == {"done": 0, "values": {"loss": 0.5}}
    assert found[1].time == batch[0].time
    assert services.events.after(job.id, found[2].id, limit=2) == found[3:5]
    assert services.events.after(job.id, 2**80) == []
    assert [event.number for event in services.events.latest(job.id, ["Step"], 2)] == [6, 5]


def test_the_next_attempt_counts_from_0_again(services: Services, clock: object) -> None:
    job = submit(services)
    services.events.append(job.id, claim(services).token, _steps(services, 0, 2))
    silence(services, clock, 31)
    lease = claim(services)
    services.events.append(job.id, lease.token, _steps(services, 0, 1))
    services.leases.end(job.id, lease.token, DONE)
    found = services.events.after(job.id)
    assert [(event.kind, event.attempt, event.number) for event in found] == [
        ("state", 1, None),
        ("Step", 1, 0),
        ("Step", 1, 1),
        ("state", 1, None),
        ("state", 2, None),
        ("Step", 2, 0),
        ("end", 2, None),
    ]


def test_events_that_no_worker_sends_are_refused(services: Services) -> None:
    job = submit(services)
    lease, now = claim(services), services.clock.now()
    for event in (
        NewEvent(-1, now, "Step"),
        NewEvent(2**40, now, "Step"),
        NewEvent(0, now, "end"),
        NewEvent(0, now, ""),
        NewEvent(0, now.replace(tzinfo=None), "Step"),
    ):
        with pytest.raises(RefusedError):
            services.events.append(job.id, lease.token, [event])
    with pytest.raises(RefusedError, match="one batch"):
        services.events.append(job.id, lease.token, _steps(services, 0, 1001))
    deep: dict[str, object] = {}
    for _ in range(100):
        deep = {"x": deep}
    with pytest.raises(RefusedError, match="nested"):
        services.events.append(job.id, lease.token, [NewEvent(0, now, "Step", deep)])
    hostile = {"a\0": ["\ud800", float("inf"), 10**400, True]}
    services.events.append(job.id, lease.token, [NewEvent(0, now, "Step", hostile)])
    assert services.events.after(job.id)[-1].body == {"a\ufffd": ["?", None, None, True]}


def test_memory_is_flat_over_ten_thousand_events(services: Services) -> None:
    job = submit(services)
    lease = claim(services)
    last, seen, sizes = 0, 0, []
    tracemalloc.start()
    try:
        for start in range(0, 10_000, 500):
            services.events.append(job.id, lease.token, _steps(services, start, 500))
            while page := services.events.after(job.id, last, 200):
                last, seen = page[-1].id, seen + len(page)
            del page
            sizes.append(tracemalloc.get_traced_memory()[0])
    finally:
        tracemalloc.stop()
    assert seen == 10_001
    assert sizes[-1] - sizes[len(sizes) // 2] < 1 << 20


def test_an_ear_misses_nothing_and_wakes_at_once() -> None:
    bell = Bell()
    with bell.listen("job") as ear, bell.listen(WORK) as other:
        bell.ring("job")
        assert ear.heard(0)
        assert not ear.heard(0)
        timer = threading.Timer(0.05, bell.ring, ["job"])
        timer.start()
        assert ear.heard(30)
        assert not other.heard(0)
        bell.ring_all()
        assert other.heard(0)
    bell.ring("job")
    assert bell._ears == {}


def test_coroutines_hear_what_threads_ring() -> None:
    bell = Bell()

    async def listen() -> list[bool]:
        with bell.listen("job") as ear:
            bell.ring("job")
            heard = [await ear.heard_async(30)]
            threading.Timer(0.05, bell.ring, ["job"]).start()
            heard.append(await ear.heard_async(30))
            heard.append(await ear.heard_async(0.01))
            return heard

    assert asyncio.run(listen()) == [True, True, False]
