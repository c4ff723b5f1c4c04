"""Jobs on a worker: done, failed, cancelled, limited, cut off and gone on with; with a sandbox and without."""

from __future__ import annotations

import errno
import os
import secrets
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from compressor.errors import UsageError
from compressor.service.worker.config import WorkerConfig
from compressor.service.worker.errors import RequestRefusedError
from compressor.service.worker.loop import Worker
from compressor.service.worker.processes import MARK
from tests.service.worker.conftest import HERE, Begin
from tests.service.worker.fake_server import KEY, FakeJob, FakeServer

OWN = "CUBLAS_WORKSPACE_CONFIG"
pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")


def scripted(server: FakeServer, name: str, *steps: list[Any], **more: Any) -> FakeJob:
    return server.submit(name, {"steps": list(steps)}, **more)


@pytest.fixture(autouse=True)
def own(monkeypatch: pytest.MonkeyPatch) -> None:
    """Processes of this test's jobs are told from those of others by a variable that children keep."""
    monkeypatch.setenv(OWN, f":16:{secrets.randbelow(1 << 60)}")


def processes_of_jobs() -> list[int]:
    """All processes of this test's jobs, sandboxes among them."""
    own = f"{OWN}={os.environ[OWN]}".encode()
    found = []
    for place in Path("/proc").glob("[0-9]*"):
        try:
            variables = (place / "environ").read_bytes().split(b"\0")
            is_of_a_job = own in variables and any(each.startswith(f"{MARK}=".encode()) for each in variables)
            if is_of_a_job and (place / "stat").read_text().rpartition(")")[2].split()[0] != "Z":
                found.append(int(place.name))
        except OSError:
            continue
    return found


def said(job: FakeJob) -> list[str]:
    return [event["body"]["text"] for event in job.events if event["event"] == "Message"]


def test_a_job_is_done_with_its_files_and_events(server: FakeServer, begin: Begin) -> None:
    begin()
    steps = [["stage", "search"], ["steps", 3], ["write", "a/b.bin", 5], ["say", "hello"]]
    job = scripted(server, "one", *steps)
    server.ended(job)
    assert (job.state, job.error) == ("done", None)
    assert set(job.files) == {"a/b.bin", "worker.log"}  # what it would go on from is left out once it is done
    assert server.file(job, "a/b.bin") == b"xxxxx"
    assert server.file(job, "worker.log") == b"hello\n"
    assert job.kinds == ["StageBegan", "StageEnded", "TrainingBegan", "Step", "Step", "Step"]
    assert [event["number"] for event in job.events] == list(range(6))
    assert job.events[1]["body"] == {"stage": "search", "seconds": 0.0}


def test_jobs_come_one_after_the_other_and_leave_nothing(server: FakeServer, begin: Begin) -> None:
    jobs = [scripted(server, f"job{number}", ["write", "a", number + 1]) for number in range(3)]
    worker = begin()
    server.ended(*jobs)
    assert [len(server.file(job, "a")) for job in jobs] == [1, 2, 3]
    server.wait(lambda: list((worker.config.folder / "jobs").iterdir()) == [])


@pytest.mark.parametrize(
    ("step", "error"),
    [
        (["fail", "UsageError", "no such thing"], {"kind": "UsageError", "text": "no such thing", "exit_code": 2}),
        (["fail", "UnreachableBudgetError", "far"], {"kind": "UnreachableBudgetError", "text": "far", "exit_code": 3}),
        (
            ["fail", "RuntimeError", "what?"],
            {"kind": "RuntimeError", "text": "Unexpected RuntimeError: what?", "exit_code": 1},
        ),
        (
            ["fail", "SystemExit", "bye"],
            {"kind": "SystemExit", "text": "ended the program with SystemExit(bye)", "exit_code": 1},
        ),
        (["die", 11], {"kind": "ProcessDied", "text": "was ended by SIGSEGV", "exit_code": 1}),
        (["die", 9], {"kind": "ProcessDied", "text": "may have run out of memory", "exit_code": 1}),
    ],
)
def test_a_failed_job_says_why(server: FakeServer, begin: Begin, step: list[Any], error: dict[str, Any]) -> None:
    job = scripted(server, "one", ["stage", "search"], ["write", "a", 3], step)
    begin()
    server.ended(job)
    assert job.state == "failed"
    assert job.error is not None
    assert (job.error["kind"], job.error["exit_code"]) == (error["kind"], error["exit_code"])
    assert error["text"] in job.error["text"]
    assert {"a", ".job/stages/search.json"} <= set(job.files)  # a retry goes on from there
    if step[0] == "fail":
        assert b"Traceback" in server.file(job, "worker.log")


@pytest.mark.parametrize(
    ("limits", "steps", "text"),
    [
        ({"memory_bytes": 256 << 20}, [["eat", 600 << 20]], "more than the limit of 256 MiB"),
        ({"seconds": 0.5}, [["sleep", 60]], "time limit of 0.5 s"),
        ({"file_bytes": 1 << 20}, [["write", "a", 5 << 20]], "limit of 1 MiB for one file"),
        ({"open_files": 40}, [["open", 100]], "limit of 40"),
        ({"folder_files": 50}, [["files", 100], ["sleep", 60]], "more than the limit of 50"),
        ({"folder_bytes": 1 << 20}, [["write", "a", 5 << 20], ["sleep", 60]], "more than the limit of 1 MiB"),
        ({"processes": 3}, [["fork", "here"], ["fork", "here"], ["sleep", 60]], "more than the limit of 3"),
    ],
)
def test_a_job_past_a_limit_fails_and_says_which(
    server: FakeServer, begin: Begin, limits: dict[str, Any], steps: list[list[Any]], text: str
) -> None:
    job = scripted(server, "one", *steps)
    begin(limits=limits)
    server.ended(job)
    assert job.state == "failed"
    assert job.error is not None
    assert text in job.error["text"]
    assert processes_of_jobs() == []


def test_a_cancelled_job_is_killed_with_all_that_it_began(server: FakeServer, begin: Begin) -> None:
    server.lease_seconds = 0.6
    job = scripted(server, "one", ["stage", "search"], ["fork", "forked"], ["sleep", 60])
    begin()
    server.wait(lambda: said(job) == ["forked"] and len(processes_of_jobs()) >= 3)
    job.cancel = True
    server.ended(job)
    assert (job.state, job.error) == ("cancelled", None)
    assert processes_of_jobs() == []


def test_a_lost_lease_ends_the_job_and_nothing_more_is_written(server: FakeServer, begin: Begin) -> None:
    server.lease_seconds = 0.6
    job = scripted(server, "one", ["stage", "search"], ["fork", "forked"], ["write", "a", 3], ["sleep", 60])
    begin()
    server.wait(lambda: said(job) == ["forked"] and job.snapshots > 0)
    with server.lock:
        job.token, before = "another's", dict(job.files)
        server.requests.clear()
    server.wait(lambda: processes_of_jobs() == [])
    time.sleep(0.3)
    assert (job.state, job.files) == ("running", before)
    assert not [each for each in server.requests if "/one/" in each and not each.endswith(("renew", "events"))]


def test_a_job_runs_on_while_the_server_is_away(server: FakeServer, begin: Begin) -> None:
    job = scripted(server, "one", ["stage", "search"], ["steps", 30, 0.05], ["write", "a", 3])
    begin()
    server.wait(lambda: "Step" in job.kinds)
    server.away.set()
    time.sleep(2)
    server.away.clear()
    server.ended(job)
    assert job.state == "done"
    assert [event["number"] for event in job.events] == list(range(33))
    assert server.file(job, "a") == b"xxx"


def test_contents_that_the_server_lost_are_sent_again(server: FakeServer, begin: Begin) -> None:
    job = scripted(server, "one", ["write", "a", 3])
    server.missing_once = {server.keep(b"xxx")}
    begin()
    server.ended(job)
    assert (job.state, server.file(job, "a")) == ("done", b"xxx")


def test_a_worker_that_is_to_stop_gives_its_job_back_and_it_goes_on_elsewhere(server: FakeServer, begin: Begin) -> None:
    job = scripted(
        server, "one", ["stage", "search"], ["write", "a", 3], ["say", "first"], ["sleep", 2], ["stage", "trim"]
    )
    first = begin(name="first")
    server.wait(lambda: "StageEnded" in job.kinds)
    time.sleep(0.3)
    first.stop()
    server.wait(lambda: job.state == "queued" or job.attempt > 1)
    assert {"a", ".job/stages/search.json"} <= set(job.files)
    begin(name="second")
    server.ended(job)
    assert (job.state, job.attempt) == ("done", 2)
    assert said(job) == ["search was done"]
    assert server.file(job, "worker.log") == b"first\nfirst\n"


def test_a_key_that_is_taken_away_ends_the_worker(server: FakeServer, config: Callable[..., WorkerConfig]) -> None:
    worker = Worker(config(key="another"))
    with pytest.raises(RequestRefusedError, match=r"no such key.*--key-file"):
        worker.run()


def test_two_workers_of_one_name_do_not_share_a_folder(server: FakeServer, config: Callable[..., WorkerConfig]) -> None:
    one, two = Worker(config()), Worker(config())
    thread = threading.Thread(target=one.run)
    thread.start()
    server.wait(lambda: bool(server.requests))
    with pytest.raises(UsageError, match=r"worker is called 'worker'.*--name"):
        two.run()
    one.stop()
    thread.join()


def test_events_of_a_job_that_floods_are_bounded(
    server: FakeServer, begin: Begin, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("compressor.service.worker.outbox.MOST_OF_A_JOB", 100)
    job = scripted(server, "one", ["steps", 500], ["say", "x" * 1000, 1000], ["stage", "search"])
    begin()
    server.ended(job)
    assert job.state == "done"
    assert len(job.events) == 102  # the first hundred, and what a stage says
    assert len(server.file(job, "worker.log")) < (256 << 10) + 100


@pytest.mark.slow
def test_a_worker_whose_disk_is_full_leaves_the_job_to_others(
    server: FakeServer, begin: Begin, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*told: object) -> None:
        monkeypatch.undo()
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("compressor.service.worker.loop._UNABLE_SECONDS", 0.1)
    monkeypatch.setattr("compressor.service.worker.link.Link.get_blob", full)
    job = scripted(server, "one", ["write", "a", 3])
    job.files = {"b": server.keep(b"before")}
    begin()
    server.ended(job)
    assert (job.state, job.attempt, set(job.files)) == ("done", 2, {"a", "b"})


def test_links_are_not_followed_into_a_snapshot(server: FakeServer, begin: Begin) -> None:
    job = scripted(server, "one", ["link", "there", "/etc/hostname"], ["link", "folder", "/etc"], ["write", "a", 3])
    begin()
    server.ended(job)
    assert (job.state, set(job.files)) == ("done", {"a"})


def test_paths_that_lead_out_of_the_folder_are_refused(server: FakeServer, begin: Begin) -> None:
    job = scripted(server, "one", ["write", "a", 3])
    job.files = {"../../out": server.keep(b"evil")}
    begin()
    server.ended(job)
    assert job.state == "failed"
    assert job.error is not None
    assert "no path inside" in job.error["text"]


def test_a_child_that_waits_takes_the_next_job(server: FakeServer, begin: Begin) -> None:
    worker = begin(warm=True)
    server.wait(lambda: len(processes_of_jobs()) > 0)
    jobs = [scripted(server, f"job{number}", ["write", "a", number + 1]) for number in range(3)]
    server.ended(*jobs)
    assert [job.state for job in jobs] == ["done"] * 3
    worker.stop()
    server.wait(lambda: processes_of_jobs() == [])


def started(server: FakeServer, scratch: Path, more: str = "{}") -> subprocess.Popen[bytes]:
    command = [sys.executable, str(HERE / "run_worker.py"), server.url, KEY, str(scratch), more]
    return subprocess.Popen(command, stderr=subprocess.DEVNULL)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_nothing_stays_of_a_worker_that_is_killed(server: FakeServer, tmp_path: Path, number: int) -> None:
    job = scripted(server, "one", ["stage", "search"], ["fork", "forked"], ["sleep", 60])
    with started(server, tmp_path / "scratch") as process:
        server.wait(lambda: said(job) == ["forked"] and job.snapshots > 0)
        assert len(processes_of_jobs()) >= 3
        process.send_signal(number)
        process.wait(timeout=30)
    server.wait(lambda: processes_of_jobs() == [])
    assert job.state == ("queued" if number == signal.SIGTERM else "running")
    assert ".job/stages/search.json" in job.files
    assert process.returncode == (0 if number == signal.SIGTERM else -signal.SIGKILL)
