"""Clients here wait for nothing; and a server as it runs, with somebody who works for it."""

from __future__ import annotations

import hashlib
import io
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import uvicorn

from compressor.pipeline.events import Event
from compressor.service.api.app import create_app
from compressor.service.client import Client, connection
from compressor.service.records import FileRecord, NewEvent
from compressor.service.services import Services, services_of
from compressor.service.settings import ServiceSettings


@pytest.fixture(autouse=True)
def pauses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The seconds that a client would have waited."""
    waited: list[float] = []
    monkeypatch.setattr(connection, "pause", waited.append)
    return waited


@dataclass
class Server:
    """A server in threads of this process.

    Attributes:
        url: its address.
        services: its parts.
    """

    url: str
    services: Services

    def client(self, key: str | None = None) -> Client:
        return Client(self.url, key)

    def work(
        self,
        events: list[Event],
        files: Mapping[str, bytes],
        state: str = "done",
        error: Mapping[str, Any] | None = None,
        *,
        between: Callable[[], None] = lambda: None,
    ) -> str:
        """Do the next job as a worker does; returns its id."""
        parts, now = self.services, datetime(2026, 3, 2, tzinfo=UTC)
        claim = parts.leases.claim("w", ["code"])
        assert claim is not None
        job = claim.job.id
        for number, event in enumerate(events):
            body = {name: value for name, value in event.to_json().items() if name != "event"}
            parts.events.append(job, claim.token, [NewEvent(number, now, type(event).__name__, body)])
            between()
        records = []
        for path, body in files.items():
            sha256, size = parts.blobs.put(io.BytesIO(body))
            assert sha256 == hashlib.sha256(body).hexdigest()
            records.append(FileRecord(path, sha256, size))
        assert parts.files.snapshot(job, claim.token, records) == []
        parts.leases.end(job, claim.token, state, error)
        return job


@contextmanager
def serving(parts: Services) -> Iterator[Server]:
    """Inside, these parts are served in threads of this process."""
    app = create_app(parts)
    running = uvicorn.Server(uvicorn.Config(app, port=0, log_level="error", proxy_headers=False, ws="none"))
    thread = threading.Thread(target=running.run, daemon=True)
    thread.start()
    while not running.started:
        assert thread.is_alive()
        time.sleep(0.02)
    port = running.servers[0].sockets[0].getsockname()[1]
    yield Server(f"http://127.0.0.1:{port}", parts)
    app.state.closing.set()
    running.should_exit = True
    thread.join(10)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    """One without keys, and without workers."""
    parts = services_of(ServiceSettings(data_dir=tmp_path / "data", workers=0, upload_bytes=1 << 20))
    with serving(parts) as found:
        yield found
    parts.close()
