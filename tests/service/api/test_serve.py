"""The server as a process: it starts with nothing set up, refuses what it must in a line, and leaves nothing behind."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from compressor.errors import UsageError
from compressor.service.local_workers import LocalWorkers
from compressor.service.serve import address, bound
from compressor.service.settings import ServiceSettings
from tests.service.api.conftest import RECIPE

SECONDS = 120


@contextmanager
def serving(folder: Path, *options: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """A server on a free port; its process and its address."""
    command = [sys.executable, "-m", "compressor", "serve", "--port", "0", "--data-dir", str(folder), *options]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("COMPRESSOR_")}
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment)
    try:
        yield process, _address(process)
    finally:
        if process.poll() is None:
            process.kill()
        process.wait(SECONDS)
        assert process.stderr is not None
        process.stderr.close()


def _address(process: subprocess.Popen[str]) -> str:
    assert process.stderr is not None
    said = []
    for line in process.stderr:
        said.append(line)
        if found := re.search(r"Serving on (http://\S+) ", line):
            return found[1]
    raise AssertionError("".join(said))


def failed(folder: Path, *options: str) -> tuple[int, str]:
    """Exit code and stderr of a server that does not start."""
    command = [sys.executable, "-m", "compressor", "serve", "--data-dir", str(folder), *options]
    done = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS, check=False)
    return done.returncode, done.stderr


@pytest.mark.slow
def test_it_starts_with_nothing_and_stops_in_order(tmp_path: Path) -> None:
    with serving(tmp_path / "new" / "data", "--workers", "0") as (process, url), httpx.Client(base_url=url) as client:
        assert client.get("/healthz").json()["status"] == "ok"
        assert client.get("/readyz").status_code == 200
        job = client.post("/v1/jobs", json=RECIPE).json()["id"]
        with client.stream("GET", f"/v1/jobs/{job}/events", timeout=SECONDS) as stream:
            lines = stream.iter_lines()
            next(lines)
            process.send_signal(signal.SIGTERM)
            for _ in lines:
                pass  # the stream ends, as the server stops
        assert process.wait(SECONDS) == 0
    with serving(tmp_path / "new" / "data", "--workers", "0") as (process, url), httpx.Client(base_url=url) as client:
        assert client.get(f"/v1/jobs/{job}").json()["state"] == "queued"
        process.send_signal(signal.SIGINT)
        assert process.wait(SECONDS) == 0


@pytest.mark.slow
def test_what_it_refuses_in_a_line(tmp_path: Path) -> None:
    with serving(tmp_path / "one", "--workers", "0") as (_, url):
        port = url.rpartition(":")[2]
        code, said = failed(tmp_path / "two", "--port", port, "--workers", "0")
        assert (code, said.count("\n")) == (2, 1)
        assert f"Port {port} of 127.0.0.1 is in use" in said
        assert "--port" in said
        code, said = failed(tmp_path / "one", "--port", "0", "--workers", "0")
        assert (code, said.count("\n")) == (2, 1)
        assert "Another process" in said
    code, said = failed(tmp_path / "three", "--host", "0.0.0.0", "--port", "0", "--workers", "0")
    assert (code, said.count("\n")) == (2, 1)
    assert "compress keys create" in said
    (tmp_path / "file").write_text("x")
    code, said = failed(tmp_path / "file", "--port", "0")
    assert (code, said.count("\n")) == (2, 1)


@pytest.mark.slow
def test_workers_take_jobs_and_are_gone_with_a_server_that_is_killed(tmp_path: Path) -> None:
    with serving(tmp_path / "data", "--workers", "1") as (process, url), httpx.Client(base_url=url) as client:
        until = time.monotonic() + SECONDS
        while not client.get("/v1/workers").json()["workers"] and time.monotonic() < until:
            time.sleep(0.2)
        assert [each["name"] for each in client.get("/v1/workers").json()["workers"]] == ["local-1"]
        started = _children(process.pid)
        assert started
        process.kill()
        process.wait(SECONDS)
        while any(_lives(each) for each in started) and time.monotonic() < until:
            time.sleep(0.1)
        assert [each for each in started if _lives(each)] == []


def _children(parent: int) -> list[int]:
    found = subprocess.run(["ps", "-o", "pid=", "--ppid", str(parent)], capture_output=True, text=True, check=False)
    return [int(word) for word in found.stdout.split()]


def _lives(process: int) -> bool:
    try:
        state = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"


def test_a_port_in_use_is_told(tmp_path: Path) -> None:
    with bound("127.0.0.1", 0) as there:
        port = there.getsockname()[1]
        assert address("127.0.0.1", there) == f"http://127.0.0.1:{port}"
        assert address("0.0.0.0", there) == f"http://127.0.0.1:{port}"
        with pytest.raises(UsageError, match=f"Port {port} of 127.0.0.1 is in use"):
            bound("127.0.0.1", port)
    with bound("127.0.0.1", port):
        pass  # it is free again at once
    with pytest.raises(UsageError, match="no address of this machine"):
        bound("203.0.113.7", 0)
    with pytest.raises(UsageError, match="no address"):
        bound("no.such.host.invalid", 0)


def test_addresses_of_ipv6() -> None:
    if not socket.has_ipv6:
        pytest.skip("no IPv6 here")
    try:
        there = bound("::1", 0)
    except UsageError:
        pytest.skip("no IPv6 here")
    with there:
        assert address("::1", there) == f"http://[::1]:{there.getsockname()[1]}"


_WRITES = """
import os, signal, sys
key = sys.stdin.readline().strip()
with open(sys.argv[1], "a") as file:
    file.write(f"{key} {os.environ.get('COMPRESSOR_DATABASE_URL')} {os.environ['COMPRESSOR_DATASETS']}\\n")
if sys.argv[2] == "dies":
    sys.exit(3)
signal.signal(signal.SIGTERM, (lambda *_: None) if sys.argv[2] == "stays" else (lambda *_: sys.exit(0)))
sys.stdin.read()
"""


@pytest.fixture
def made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Makes local workers that write what they were told, behave in some way, and are ended with the test."""
    monkeypatch.setenv("COMPRESSOR_DATABASE_URL", "postgresql://user:password@host/db")
    found: list[LocalWorkers] = []

    def make(count: int, way: str) -> tuple[LocalWorkers, Path]:
        settings = ServiceSettings(data_dir=tmp_path, workers=count, datasets={"mine": "npz:/data/x.npz"})
        file = tmp_path / "said"

        def command(name: str) -> list[str]:
            return [sys.executable, "-c", _WRITES, str(file), way]

        workers = LocalWorkers(settings, "http://127.0.0.1:1", lambda name: f"key-of-{name}", command=command)
        found.append(workers)
        workers.start()
        return workers, file

    yield make
    for each in found:
        each.kill()


def _lines(file: Path, count: int) -> list[str]:
    until = time.monotonic() + SECONDS
    while time.monotonic() < until:
        lines = file.read_text().splitlines() if file.exists() else []
        if len(lines) >= count:
            return lines
        time.sleep(0.02)
    raise AssertionError(lines)


def test_local_workers_get_a_key_and_no_password(made: Any) -> None:
    workers, file = made(2, "lives")
    lines = sorted(_lines(file, 2))
    given = json.dumps({"mine": "npz:/data/x.npz"})
    assert lines == [f"key-of-local-1 None {given}", f"key-of-local-2 None {given}"]
    processes = workers.processes()
    assert len(processes) == 2
    workers.stop()
    assert workers.processes() == []
    assert not any(_lives(each) for each in processes)


def test_a_worker_that_dies_is_started_again(made: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("compressor.service.local_workers.LONGEST_PAUSE", 0.05)
    monkeypatch.setattr("compressor.service.local_workers.FIRST_PAUSE", 0.05)
    workers, file = made(1, "dies")
    assert len(set(_lines(file, 3))) == 1
    workers.stop()


def test_a_worker_that_does_not_stop_is_killed(made: Any) -> None:
    workers, file = made(1, "stays")
    _lines(file, 1)
    processes = workers.processes()
    workers.stop(within=0.3)
    assert not any(_lives(each) for each in processes)
