"""A server of the worker's HTTP contract, in memory, that can be away, forget leases and ask for cancels.

What the real one does beside is tested with it; here a test can reach into everything.
"""

from __future__ import annotations

import hashlib
import json
import re
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any

KEY = "a-key-of-tests"


@dataclass
class FakeJob:
    """A job as the server knows it."""

    id: str
    recipe: dict[str, Any]
    kind: str = "compress"
    uploads: list[dict[str, Any]] = field(default_factory=list)
    parent: str | None = None
    parent_files: list[dict[str, Any]] = field(default_factory=list)
    state: str = "queued"
    token: str | None = None
    attempt: int = 0
    cancel: bool = False
    error: dict[str, Any] | None = None
    files: dict[str, str] = field(default_factory=dict)
    """Contents by path."""
    events: list[dict[str, Any]] = field(default_factory=list)
    renewals: list[dict[str, Any]] = field(default_factory=list)
    snapshots: int = 0

    @property
    def kinds(self) -> list[str]:
        """The kinds of its events, in order."""
        return [event["event"] for event in self.events]


class FakeServer:
    """Serves on a free port inside a ``with`` block.

    Attributes:
        away: every request is answered with 503 while it is set.
        missing_once: contents that are said to be missing when a snapshot first names them.
    """

    def __init__(self, lease_seconds: float = 3.0) -> None:
        self.lease_seconds = lease_seconds
        self.jobs: dict[str, FakeJob] = {}
        self.blobs: dict[str, bytes] = {}
        self.away = threading.Event()
        self.missing_once: set[str] = set()
        self.requests: list[str] = []
        self.lock = threading.RLock()
        self._http: ThreadingHTTPServer | None = None

    @property
    def url(self) -> str:
        assert self._http is not None
        return f"http://127.0.0.1:{self._http.server_address[1]}"

    def submit(self, name: str, recipe: dict[str, Any], **more: Any) -> FakeJob:
        with self.lock:
            self.jobs[name] = FakeJob(name, {"model": "none", "weights": "none", **recipe}, **more)
            return self.jobs[name]

    def keep(self, data: bytes) -> str:
        """A content; returns its hash."""
        found = hashlib.sha256(data).hexdigest()
        self.blobs[found] = data
        return found

    def file(self, job: FakeJob, path: str) -> bytes:
        """A file of a job, as its last snapshot has it."""
        return self.blobs[job.files[path]]

    def wait(self, condition: Callable[[], bool], seconds: float = 60.0) -> None:
        """Wait until something is so."""
        end = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < end, [(j.id, j.state, j.error, j.kinds[-5:]) for j in self.jobs.values()]
            time.sleep(0.02)

    def ended(self, *jobs: FakeJob) -> None:
        """Wait until jobs have ended."""
        self.wait(lambda: all(job.state in ("done", "failed", "cancelled") for job in jobs))

    def __enter__(self) -> FakeServer:
        server = self

        class Handler(_Handler):
            fake = server

        self._http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._http.daemon_threads = True
        threading.Thread(target=self._http.serve_forever, args=(0.02,), daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        assert self._http is not None
        self._http.shutdown()
        self._http.server_close()


class _Handler(BaseHTTPRequestHandler):
    fake: FakeServer
    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *arguments: Any) -> None:
        pass

    def do_POST(self) -> None:
        body = json.loads(self._body())
        self._serve(lambda: self._post(body))

    def do_PUT(self) -> None:
        data = self._body()
        self._serve(lambda: self._put(data))

    def do_HEAD(self) -> None:
        self._serve(lambda: (200 if self._hash() in self.fake.blobs else 404, None))

    def do_GET(self) -> None:
        self._serve(lambda: (200, self.fake.blobs[self._hash()]))

    def _body(self) -> bytes:
        return self.rfile.read(int(self.headers.get("Content-Length") or 0))

    def _hash(self) -> str:
        return self.path.rpartition("/")[2]

    def _serve(self, answer: Callable[[], tuple[int, Any]]) -> None:
        if self.fake.away.is_set():
            status, body = 503, {"detail": "away"}
        elif self.headers.get("Authorization") != f"Bearer {KEY}":
            status, body = 401, {"detail": "There is no such key."}
        else:
            self.fake.requests.append(f"{self.command} {self.path}")
            with self.fake.lock:
                status, body = answer()
        data = body if isinstance(body, bytes) else b"" if body is None else json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    def _put(self, data: bytes) -> tuple[int, Any]:
        if hashlib.sha256(data).hexdigest() != self._hash():
            return 422, {"detail": "These bytes have another hash."}
        self.fake.blobs[self._hash()] = data
        return 201, {}

    def _post(self, body: dict[str, Any]) -> tuple[int, Any]:
        if self.path == "/v1/work/claim":
            return self._claim()
        found = re.fullmatch(r"/v1/work/([\w-]+)/(\w+)", self.path)
        if found is None or (job := self.fake.jobs.get(found[1])) is None:
            return 404, {"detail": "There is none."}
        if job.token is None or body["token"] != job.token:
            return 409, {"detail": "The lease is another's."}
        answer: tuple[int, Any] = getattr(self, f"_{found[2]}")(job, body)
        return answer

    def _claim(self) -> tuple[int, Any]:
        job = next((each for each in self.fake.jobs.values() if each.state == "queued"), None)
        if job is None:
            time.sleep(0.02)
            return 204, None
        job.state, job.attempt = "running", job.attempt + 1
        job.token = f"token-{job.id}-{job.attempt}"
        named = {"id": job.id, "kind": job.kind, "recipe": job.recipe, "attempt": job.attempt, "parent": job.parent}
        files = [self._listed(path, content) for path, content in job.files.items()]
        more = {"files": files, "uploads": job.uploads, "parent_files": job.parent_files}
        return 200, {"job": named, "token": job.token, "lease_seconds": self.fake.lease_seconds, **more}

    def _listed(self, path: str, content: str) -> dict[str, Any]:
        return {"path": path, "sha256": content, "bytes": len(self.fake.blobs[content])}

    def _renew(self, job: FakeJob, body: dict[str, Any]) -> tuple[int, Any]:
        job.renewals.append(body)
        return 200, {"cancel": job.cancel}

    def _events(self, job: FakeJob, body: dict[str, Any]) -> tuple[int, Any]:
        there = {(event["attempt"], event["number"]) for event in job.events}
        new = [{**event, "attempt": job.attempt} for event in body["events"]]
        job.events += [event for event in new if (job.attempt, event["number"]) not in there]
        return 200, {}

    def _snapshot(self, job: FakeJob, body: dict[str, Any]) -> tuple[int, Any]:
        named = [file["sha256"] for file in body["files"]]
        for each in self.fake.missing_once & set(named):
            self.fake.blobs.pop(each, None)
            self.fake.missing_once.discard(each)
        if missing := [each for each in named if each not in self.fake.blobs]:
            return 409, {"detail": "Contents are missing.", "missing": missing}
        job.files = {file["path"]: file["sha256"] for file in body["files"]}
        job.snapshots += 1
        return 200, {"missing": []}

    def _end(self, job: FakeJob, body: dict[str, Any]) -> tuple[int, Any]:
        job.state, job.error, job.token = body["state"], body["error"], None
        if job.state == "done":
            job.files = {path: sha256 for path, sha256 in job.files.items() if not f"/{path}".count("/.")}
        return 200, {}

    def _release(self, job: FakeJob, body: dict[str, Any]) -> tuple[int, Any]:
        job.state, job.token = "queued", None
        return 200, {}
