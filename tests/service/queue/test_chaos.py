"""Workers that die without a word, renew late, say things twice and come back from the dead: every job ends once."""

from __future__ import annotations

import random
import subprocess
import sys
import threading
from collections import Counter
from contextlib import suppress
from pathlib import Path

import pytest

from compressor.service.errors import ConflictError, StaleLeaseError
from compressor.service.records import CANCELLED, DONE, ENDED, FAILED, NewEvent
from compressor.service.services import Services
from tests.service.clocks import FakeClock
from tests.service.conftest import ServicesMaker
from tests.service.queue.submitting import submit

_JOBS = 30


def _worker(
    services: Services, name: str, seed: int, over: threading.Event, ticks: list[int], wins: list[str], lost: list[str]
) -> None:
    """Claims and works until all is over. What it is told is done, it counts as its own."""
    draw = random.Random(seed)
    while not over.is_set():
        lease = services.leases.claim(name, ("code",))
        if lease is None:
            over.wait(0.01)
            continue
        job, token = lease.job.id, lease.token
        try:
            for number in range(draw.randrange(4)):
                services.events.append(job, token, [NewEvent(number, services.clock.now(), "Step")] * 2)
                if services.leases.renew(job, token, stage="search", done=number):
                    services.leases.end(job, token, CANCELLED)
                    break
            else:
                fate = draw.random()
                if fate < 0.3:
                    continue  # dies without a word
                if fate < 0.4:
                    services.leases.release(job, token)
                    continue
                if fate < 0.6:
                    late = len(ticks) + draw.randrange(12)  # meanwhile its lease may run out
                    while len(ticks) < late and not over.wait(0.002):
                        pass
                services.leases.end(job, token, DONE)
                wins.append(job)
                services.leases.end(job, token, DONE)  # the answer was lost on its way
        except StaleLeaseError:
            lost.append(job)


def test_every_job_ends_once(make_services: ServicesMaker, database_url: str, clock: FakeClock) -> None:
    services = make_services(database_url, most_attempts=1000, most_running=3)
    jobs = [submit(services, name=str(number), labels=("code",) * (number % 2)).id for number in range(_JOBS)]
    over, ticks, wins, lost, failures = threading.Event(), [], [], [], []

    def work(number: int) -> None:
        try:
            _worker(services, f"w{number}", number, over, ticks, wins, lost)
        except Exception as error:
            failures.append(error)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    draw = random.Random(7)
    try:
        for _ in range(2000):
            clock.advance(draw.choice((1, 5, 20)))
            if draw.random() < 0.1:
                clock.jump(draw.choice((-3600, 86400)))
            services.leases.expire()
            ticks.append(1)
            running = services.jobs.list(states=("running",), limit=100)
            assert len(running) <= 3
            if draw.random() < 0.02:
                with suppress(ConflictError):  # it has ended
                    services.jobs.cancel(draw.choice(jobs))
            if failures or all(services.jobs.counts()[state] == 0 for state in ("queued", "running")):
                break
    finally:
        over.set()
        for thread in threads:
            thread.join()
    assert failures == []
    ends = Counter()
    for job in jobs:
        record = services.jobs.get(job)
        events = services.events.after(job, limit=5000)
        ends[record.state] += 1
        assert record.state in (DONE, CANCELLED)
        assert [event.kind for event in events].count("end") == 1
        assert events[-1].body["state"] == record.state
        numbers = [(event.attempt, event.number) for event in events if event.number is not None]
        assert len(numbers) == len(set(numbers)), "no event twice"
    assert ends[DONE] + ends[CANCELLED] == _JOBS
    assert Counter(wins) == Counter(job for job in jobs if services.jobs.get(job).state == DONE)
    assert lost, "leases did run out"


_KILLED = """
import random, sys, os, time
from compressor.service.services import services_of
from compressor.service.settings import settings_of
from compressor.service.errors import StaleLeaseError
from compressor.service.records import NewEvent

folder, url, seed = sys.argv[1], sys.argv[2], int(sys.argv[3])
services = services_of(settings_of(data_dir=folder, database_url=url, lease_seconds=0.3, most_attempts=1000))
draw = random.Random(seed)
print("ready", flush=True)
while True:
    lease = services.leases.claim(f"p{seed}")
    if lease is None:
        time.sleep(0.02)
        continue
    try:
        for number in range(3):
            services.events.append(lease.job.id, lease.token, [NewEvent(number, services.clock.now(), "Step")])
            services.leases.renew(lease.job.id, lease.token)
            if draw.random() < 0.03:
                os._exit(9)
        services.leases.end(lease.job.id, lease.token, "done")
    except StaleLeaseError:
        pass
"""


@pytest.mark.slow
def test_processes_that_are_killed_lose_nothing(
    make_services: ServicesMaker, database_url: str, tmp_path: Path
) -> None:
    """They share the database itself, as servers on Postgres do; on SQLite that is more than anybody does."""
    services = make_services(database_url, real_clock=True, lease_seconds=0.5, most_attempts=1000)
    script = tmp_path / "worker.py"
    script.write_text(_KILLED)

    def start(seed: int) -> subprocess.Popen[bytes]:
        command = [sys.executable, str(script), str(tmp_path / "data"), database_url, str(seed)]
        return subprocess.Popen(command, stdout=subprocess.PIPE, cwd=Path(__file__).parents[3])

    jobs = [submit(services).id for _ in range(40)]
    draw, started = random.Random(3), 2
    processes = [start(1), start(2)]
    try:
        for round_number in range(3000):
            services.leases.expire()
            threading.Event().wait(0.05)
            if round_number % 60 == 59 and started < 8:
                draw.choice(processes).kill()
            for index, process in enumerate(processes):
                if process.poll() is not None:
                    started += 1
                    processes[index] = start(started)
            counts = services.jobs.counts()
            if counts["queued"] == counts["running"] == 0:
                break
    finally:
        for process in processes:
            process.kill()
            process.wait()
    for job in jobs:
        events = services.events.after(job, limit=5000)
        assert services.jobs.get(job).state == DONE
        assert [event.kind for event in events].count("end") == 1
        numbers = [(event.attempt, event.number) for event in events if event.number is not None]
        assert len(numbers) == len(set(numbers))


def test_states_only_go_where_they_may(sqlite_services: Services, clock: FakeClock) -> None:
    """What users and workers do, in any order, against what is allowed, kept beside it."""
    services = sqlite_services
    for seed in range(30):
        draw = random.Random(seed)
        job = submit(services).id
        state, tokens = "queued", []
        for _ in range(25):
            act = draw.choice(("claim", "end", "release", "cancel", "retry", "stale", "silence"))
            before = services.jobs.get(job)
            assert before.state == state
            if act == "claim":
                lease = services.leases.claim("w")
                assert (lease is None) == (state != "queued" or (before.not_before or clock.now()) > clock.now())
                if lease is not None:
                    tokens.append(lease.token)
                    state = "running"
            elif act in ("end", "release") and state == "running":
                end = draw.choice(ENDED)
                record = (
                    services.leases.end(job, tokens[-1], end, {"kind": "X", "text": "x", "exit_code": 1})
                    if act == "end"
                    else services.leases.release(job, tokens[-1])
                )
                expected = end if act == "end" else CANCELLED if before.cancel_requested else "queued"
                assert record.state == expected
                state = expected
            elif act == "cancel" and state in ("queued", "running"):
                state = services.jobs.cancel(job).state
                assert state == (CANCELLED if before.state == "queued" else "running")
            elif act == "retry" and state in (FAILED, CANCELLED):
                state = services.jobs.retry(job).state
            elif act == "stale" and len(tokens) > 1:
                with pytest.raises(StaleLeaseError):
                    services.leases.end(job, tokens[0], "done")
            elif act == "silence":
                services.leases.expire()
                clock.advance(70)
                services.leases.expire()
                state = services.jobs.get(job).state
                assert (state != "running") or before.state != "running"
        if state in ("queued", "running"):
            services.jobs.cancel(job)
            silence = services.leases.expire()
            clock.advance(100)
            services.leases.expire()
            assert silence == []
        assert services.jobs.get(job).ended
