"""A server in memory, and workers of it in threads."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from compressor.service.worker.config import WorkerConfig
from compressor.service.worker.errors import SandboxError
from compressor.service.worker.limits import Limits
from compressor.service.worker.loop import Worker
from compressor.service.worker.sandbox import find_sandbox
from tests.service.worker.fake_server import KEY, FakeServer

HERE = Path(__file__).parent
Begin = Callable[..., Worker]


def sandbox_works() -> bool:
    try:
        find_sandbox()
    except SandboxError:
        return False
    return True


@pytest.fixture
def server() -> Iterator[FakeServer]:
    with FakeServer() as found:
        yield found


@pytest.fixture
def config(server: FakeServer, tmp_path: Path) -> Callable[..., WorkerConfig]:
    """Settings of a worker whose children do what ``stand_in.scripted`` does."""

    def made(**more: Any) -> WorkerConfig:
        told: dict[str, Any] = {
            "server": server.url,
            "key": KEY,
            "scratch": tmp_path / "scratch",
            "code": "sandboxed" if sandbox_works() else "unsandboxed",
            "python_path": (str(HERE),),
            "work": "stand_in:scripted",
            "warm": False,
            "wait_seconds": 0.2,
        }
        told["limits"] = Limits(**more.pop("limits", {}))
        return WorkerConfig(**{**told, **more})

    return made


@pytest.fixture(params=["sandbox", "group"])
def begin(request: pytest.FixtureRequest, config: Callable[..., WorkerConfig]) -> Iterator[Begin]:
    """Begins a worker in a thread; all end with the test. Everything is tried with a sandbox and without."""
    if request.param == "sandbox" and not sandbox_works():
        pytest.skip("bubblewrap does not work here")
    begun: list[tuple[Worker, threading.Thread]] = []

    def start(**more: Any) -> Worker:
        own = {"code": "unsandboxed"} if request.param == "group" else {}
        worker = Worker(config(**{"sandbox": None if request.param == "sandbox" else False, **own, **more}))
        thread = threading.Thread(target=worker.run, daemon=True)
        thread.start()
        begun.append((worker, thread))
        return worker

    yield start
    for worker, _ in begun:
        worker.stop()
    for _, thread in begun:
        thread.join(timeout=60)
        assert not thread.is_alive()
