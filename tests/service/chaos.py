"""A service that is killed at random, and what became of its jobs: shared by tests and the benchmark of it.

Server and workers are processes. They are killed with SIGKILL and begun again a moment later; jobs are submitted
meanwhile, by a client that asks again where it got no answer.
"""

from __future__ import annotations

import json
import os
import random
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import httpx

RUN_WORKER = Path(__file__).parent / "worker" / "run_worker.py"
ENDED = ("done", "failed", "cancelled")
_AGAIN = (429, 502, 503, 504)


@dataclass
class Outcome:
    """What became of a job.

    Attributes:
        ends: how many events say that it ended.
        files: contents by path.
    """

    name: str
    state: str
    attempt: int
    deaths: int
    ends: int
    error: dict[str, Any] | None
    recipe: dict[str, Any]
    files: dict[str, bytes] = field(default_factory=dict)


@dataclass
class Kills:
    """How often who was killed."""

    workers: int = 0
    server: int = 0

    @property
    def all(self) -> int:
        """All of them."""
        return self.workers + self.server


class Farm:
    """A server and its workers, as processes.

    Args:
        folder: for everything that they keep.
        database_url: None for SQLite in the folder.
        worker: settings of ``run_worker.py``.
    """

    def __init__(
        self,
        folder: Path,
        *,
        workers: int,
        database_url: str | None = None,
        lease_seconds: float = 2.0,
        worker: Mapping[str, Any] | None = None,
    ) -> None:
        self.folder, self._count, self._told = folder, workers, dict(worker or {})
        folder.mkdir(parents=True, exist_ok=True)
        with socket.socket() as found:
            found.bind(("127.0.0.1", 0))
            self.port = int(found.getsockname()[1])
        self.url = f"http://127.0.0.1:{self.port}"
        self._environment = {name: value for name, value in os.environ.items() if not name.startswith("COMPRESSOR_")}
        self._environment |= {
            "COMPRESSOR_LEASE_SECONDS": str(lease_seconds),
            "COMPRESSOR_MOST_ATTEMPTS": "1000",
            "COMPRESSOR_MOST_QUEUED": "5000",
        }
        if database_url is not None:
            self._environment["COMPRESSOR_DATABASE_URL"] = database_url
        self.kills = Kills()
        self._server: subprocess.Popen[bytes] | None = None
        self._workers: dict[str, subprocess.Popen[bytes]] = {}
        self._logs: list[IO[bytes]] = []
        self._client = httpx.Client(base_url=self.url, timeout=30)

    def __enter__(self) -> Farm:
        self.start_server()
        for number in range(self._count):
            self.start_worker(f"worker-{number}")
        return self

    def __exit__(self, *error: object) -> None:
        for process in [*self._workers.values(), *([self._server] if self._server is not None else [])]:
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)
        for process in [*self._workers.values(), *([self._server] if self._server is not None else [])]:
            try:
                process.wait(timeout=40)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        self._client.close()
        for log in self._logs:
            log.close()

    def start_server(self) -> None:
        """Start the server; it answers a moment later."""
        command = [sys.executable, "-m", "compressor", "serve", "--port", str(self.port), "--workers", "0"]
        self._server = self._started([*command, "--data-dir", str(self.folder / "data")], "server")

    def start_worker(self, name: str) -> None:
        """Start a worker."""
        told = json.dumps({"name": name, **self._told})
        command = [sys.executable, str(RUN_WORKER), self.url, "", str(self.folder / "scratch"), told]
        self._workers[name] = self._started(command, name)

    def kill_server(self, pause: float) -> None:
        """Kill the server, and start it again."""
        assert self._server is not None
        self._server.kill()
        self._server.wait()
        self.kills.server += 1
        time.sleep(pause)
        self.start_server()

    def kill_worker(self, name: str, pause: float) -> None:
        """Kill a worker, and start it again."""
        process = self._workers[name]
        process.kill()
        process.wait()
        self.kills.workers += 1
        time.sleep(pause)
        self.start_worker(name)

    def kill_any(self, draw: random.Random, *, server: float = 0.25) -> None:
        """Kill the server or a worker, and start it again."""
        pause = draw.uniform(0, 0.5)
        if draw.random() < server:
            self.kill_server(pause)
        else:
            self.kill_worker(draw.choice(sorted(self._workers)), pause)

    def ask(self, method: str, path: str, **more: Any) -> httpx.Response:
        """A request, again and again until there is an answer."""
        end = time.monotonic() + 120
        while True:
            try:
                answer = self._client.request(method, path, **more)
                if answer.status_code not in _AGAIN:
                    return answer
                said = answer.text
            except httpx.HTTPError as error:
                said = str(error)
            if time.monotonic() > end:
                raise AssertionError(f"no answer to {method} {path}: {said}\n{self.said('server')[-2000:]}")
            time.sleep(0.1)

    def submit(self, name: str, recipe: Mapping[str, Any]) -> str:
        """Submit a job; returns its id. However often the request has to be sent, it is one job."""
        answer = self.ask(
            "POST", "/v1/jobs", json=dict(recipe), params={"name": name}, headers={"Idempotency-Key": name}
        )
        assert answer.status_code in (200, 201), answer.text
        return str(answer.json()["id"])

    def jobs(self) -> dict[str, dict[str, Any]]:
        """All jobs by id."""
        found: dict[str, dict[str, Any]] = {}
        before: str | None = None
        while True:
            params = {"limit": 100} | ({"before": before} if before is not None else {})
            page = self.ask("GET", "/v1/jobs", params=params).json()
            found |= {job["id"]: job for job in page["jobs"]}
            before = page.get("next")
            if before is None:
                return found

    def outcome(self, id: str, *, files: Callable[[str], bool] = lambda path: True) -> Outcome:
        """What became of a job, with the files that are asked for."""
        job = self.ask("GET", f"/v1/jobs/{id}").json()
        kinds: list[str] = []
        after = 0
        while True:
            params = {"after": after, "limit": 500}
            page = self.ask(
                "GET", f"/v1/jobs/{id}/events", params=params, headers={"Accept": "application/json"}
            ).json()
            kinds += [event["event"] for event in page["events"]]
            if not page["events"]:
                break
            after = page["last"]
        found = Outcome(
            name=job["name"],
            state=job["state"],
            attempt=job["attempt"],
            deaths=job["deaths"],
            ends=kinds.count("end"),
            error=job["error"],
            recipe=job["recipe"],
        )
        for file in self.ask("GET", f"/v1/jobs/{id}/files").json()["files"]:
            if files(file["path"]):
                found.files[file["path"]] = self.ask("GET", f"/v1/jobs/{id}/files/{file['path']}").content
        return found

    def said(self, who: str) -> str:
        """What a process wrote to its terminal."""
        return (self.folder / f"{who}.log").read_text(errors="replace")

    def _started(self, command: Sequence[str], who: str) -> subprocess.Popen[bytes]:
        log = (self.folder / f"{who}.log").open("ab")
        self._logs.append(log)
        return subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=self._environment)


def run(
    farm: Farm,
    recipes: Mapping[str, Mapping[str, Any]],
    *,
    kills: int,
    seed: int,
    between: tuple[float, float],
    seconds: float,
    server: float = 0.25,
) -> dict[str, str]:
    """Submit recipes by name while processes are killed, and wait until all jobs have ended; ids by name.

    Args:
        between: least and most seconds between two kills.
        seconds: after which it is given up.
        server: share of kills that are the server's.
    """
    draw, waiting = random.Random(seed), list(recipes.items())
    ids: dict[str, str] = {}
    end = time.monotonic() + seconds
    next_kill = time.monotonic() + draw.uniform(*between)
    left = kills
    while True:
        for name, recipe in waiting[:5]:
            ids[name] = farm.submit(name, recipe)
        del waiting[:5]
        if left and time.monotonic() >= next_kill:
            farm.kill_any(draw, server=server)
            left -= 1
            next_kill = time.monotonic() + draw.uniform(*between)
        states = {id: job["state"] for id, job in farm.jobs().items()}
        if not waiting and all(states[id] in ENDED for id in ids.values()):
            if left:  # the jobs were faster: kill on, nothing of what ended may change
                farm.kill_any(draw, server=server)
                left -= 1
                continue
            return ids
        assert time.monotonic() < end, (states, left, farm.said("server")[-3000:])
        time.sleep(min(1.0, 0.1 + len(ids) / 200))


@contextmanager
def in_folder(folder: Path) -> Iterator[None]:
    """Work in a folder, made if it is not there."""
    folder.mkdir(parents=True, exist_ok=True)
    before = Path.cwd()
    os.chdir(folder)
    try:
        yield
    finally:
        os.chdir(before)
