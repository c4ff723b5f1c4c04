"""A farm with fake time on both databases, and a server that real agents talk to."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("fastapi", reason="the service is not installed: pip install 'compressor[serve]'")
import httpx
import uvicorn

from compressor.service.api.app import create_app
from compressor.service.devices.agent import Agent
from compressor.service.devices.farm import Farm, farm_of
from compressor.service.devices.link import AgentLink
from compressor.service.devices.measurer import Measurer
from compressor.service.devices.measuring import Setup
from compressor.service.services import Services
from tests.service.conftest import ServicesMaker


@pytest.fixture
def farm(services: Services) -> Farm:
    return Farm(services)


@dataclass
class Served:
    """A server on a port of its own."""

    url: str
    services: Services
    farm: Farm

    def client(self) -> httpx.Client:
        return httpx.Client(base_url=self.url)


@pytest.fixture
def served(make_services: ServicesMaker, sqlite_url: str) -> Iterator[Served]:
    """Devices are away after a second here."""
    times = {"device_away_seconds": 1.0, "device_lease_seconds": 1.0, "device_patience_seconds": 60.0}
    services = make_services(sqlite_url, real_clock=True, **times)
    app = create_app(services)
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="error", lifespan="on"))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        thread.join(0.02)
        assert thread.is_alive()
    port = server.servers[0].sockets[0].getsockname()[1]
    yield Served(f"http://127.0.0.1:{port}", services, farm_of(app))
    app.state.closing.set()
    server.should_exit = True
    thread.join(10)


class RunningAgent:
    """An agent in a thread; its measuring process is real."""

    def __init__(self, url: str, name: str, folder: Path, **setup: Any) -> None:
        self.lines: list[str] = []
        self.error: BaseException | None = None
        self.link = AgentLink(url, say=self.lines.append)
        self.measurer = Measurer(Setup("simulated", str(folder), **setup))
        self.agent = Agent(name, self.link, self.measurer, folder, poll_s=0.4, renew_s=0.2, say=self.lines.append)
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            self.agent.run()
        except BaseException as error:
            self.error = error

    def stop(self) -> None:
        self.link.stop.set()
        self._thread.join(20)
        self.measurer.close()
        self.link.close()

    def join(self) -> None:
        self._thread.join(20)


@pytest.fixture
def agents(served: Served, tmp_path: Path) -> Iterator[Any]:
    """Starts agents: ``agents("slow-1", macs_per_ms=5e6)``."""
    running: list[RunningAgent] = []

    def start(name: str, **simulated: Any) -> RunningAgent:
        settings = {"device": f"simulated {name}", **simulated}
        running.append(RunningAgent(served.url, name, tmp_path / f"agent {name}", threads=1, simulated=settings))
        return running[-1]

    yield start
    for each in running:
        each.stop()
