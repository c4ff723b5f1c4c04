"""Reads that many ask for at the same moment."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from compressor.service.queue.shared_reads import SharedReads
from compressor.service.records import NewEvent
from compressor.service.services import Services
from tests.service.clocks import FakeClock
from tests.service.queue.submitting import claim, submit


def test_those_who_ask_at_once_share_one_read(clock: FakeClock) -> None:
    shared: SharedReads[int] = SharedReads(1.0, clock.monotonic)
    reads, go_on = [], threading.Event()

    def read() -> list[int]:
        reads.append(1)
        go_on.wait(10)
        return [1, 2]

    with ThreadPoolExecutor(8) as pool:
        asked = [pool.submit(shared.get, "key", read) for _ in range(8)]
        go_on.set()
        assert [one.result() for one in asked] == [[1, 2]] * 8
    assert len(reads) == 1
    assert shared.get("other", lambda: [3]) == [3]
    clock.advance(0.9)
    assert shared.get("key", lambda: [4]) == [1, 2]
    clock.advance(0.2)
    assert shared.get("key", lambda: [4]) == [4]


def test_that_nothing_is_there_everybody_asks_for_himself(clock: FakeClock) -> None:
    shared: SharedReads[int] = SharedReads(1.0, clock.monotonic)
    began, go_on = threading.Event(), threading.Event()

    def before() -> list[int]:
        began.set()
        go_on.wait(10)
        return []

    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(shared.get, "key", before)
        began.wait(10)
        # What is read here was written after the first began to look.
        second = pool.submit(shared.get, "key", lambda: [1])
        go_on.set()
        assert first.result() == []
        assert second.result() == [1]
    assert shared.get("empty", lambda: []) == []
    assert shared.get("empty", lambda: [1]) == [1]


def test_an_error_is_not_kept_and_memory_is_bounded(clock: FakeClock) -> None:
    shared: SharedReads[int] = SharedReads(1.0, clock.monotonic)

    def fail() -> list[int]:
        raise KeyError("away")

    with pytest.raises(KeyError):
        shared.get("key", fail)
    assert shared.get("key", lambda: [1]) == [1]
    for number in range(1000):
        shared.get(number, lambda number=number: [number])
    assert len(shared._recent) <= 4
    assert shared._pending == {}


def test_watchers_hear_every_event_and_the_end(services: Services) -> None:
    job = submit(services)
    lease = claim(services)
    heard: list[list[int]] = [[] for _ in range(8)]

    def watch(own: list[int]) -> None:
        last = 0
        with services.bell.listen(job.id) as ear:
            while True:
                found = services.events.after(job.id, last, 7, shared=True)
                for event in found:
                    last = event.id
                    own.append(event.id)
                if found and found[-1].kind == "end":
                    return
                if not found:
                    ear.heard(5)

    threads = [threading.Thread(target=watch, args=(own,)) for own in heard]
    for thread in threads:
        thread.start()
    for start in range(0, 200, 5):
        events = [NewEvent(start + number, services.clock.now(), "Step") for number in range(5)]
        services.events.append(job.id, lease.token, events)
    services.leases.end(job.id, lease.token, "done")
    for thread in threads:
        thread.join()
    assert len(heard[0]) == 202
    assert all(own == heard[0] for own in heard)
