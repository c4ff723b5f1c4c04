"""A key that would leave this machine in the open is warned of, once, whoever sends it."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

import compressor
from compressor.cli import main
from compressor.service.client import connection
from compressor.service.devices.agent import Agent
from compressor.service.logs import LOGGER
from compressor.service.loopback import exposed_key
from compressor.service.worker.loop import Worker

SAFE = ["http://127.0.0.1:8080", "http://localhost", "http://[::1]:80", "http://127.8.8.8", "https://far.example", "x"]
OPEN = [
    "http://far.example",
    "http://10.0.0.7:8080",
    "http://127.0.0.1.far.example",
    "HTTP://far.example",
    "http://[::2]",
]
SAID = "over plain HTTP"


@pytest.mark.parametrize("server", SAFE)
def test_what_stays_here_or_is_encrypted_is_safe(server: str) -> None:
    assert exposed_key(server, "k") is None


@pytest.mark.parametrize("server", OPEN)
def test_what_goes_elsewhere_in_the_open_is_not(server: str) -> None:
    said = exposed_key(server, "k")
    assert said is not None
    assert SAID in said
    assert "https://" in said
    assert exposed_key(server, None) is None


@pytest.mark.parametrize(("server", "key", "count"), [(OPEN[0], "k", 1), (OPEN[0], None, 0), (SAFE[0], "k", 0)])
def test_the_client_warns(server: str, key: str | None, count: int) -> None:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        compressor.Client(server, key).close()
    assert [SAID in str(each.message) for each in caught] == [True] * count
    assert all(each.filename == __file__ for each in caught), "it points at who made the client"


def _submit(monkeypatch: pytest.MonkeyPatch, server: str) -> None:
    def away(self: Any, *arguments: Any, **more: Any) -> httpx.Response:
        raise httpx.ConnectError("nobody")

    monkeypatch.setattr(httpx.Client, "request", away)
    monkeypatch.setattr(connection, "pause", lambda seconds: None)
    model = ["--model", "resnet20_cifar", "--weights", "none", "--budget-flops", "50%"]
    assert main(["submit", "--server", server, *model]) == 1


def _agent(monkeypatch: pytest.MonkeyPatch, server: str) -> None:
    monkeypatch.setattr(Agent, "run", lambda self: None)
    assert main(["agent", "--server", server, "--name", "d1"]) == 0


def _worker(monkeypatch: pytest.MonkeyPatch, server: str) -> None:
    monkeypatch.setattr(Worker, "__init__", lambda self, config: None)
    monkeypatch.setattr(Worker, "stop_on_signals", lambda self: None)
    monkeypatch.setattr(Worker, "run", lambda self: 0)
    assert main(["worker", "--server", server, "--name", "w1"]) == 0


@pytest.mark.parametrize("command", [_submit, _agent, _worker])
@pytest.mark.parametrize(("server", "count"), [(OPEN[0], 1), (SAFE[0], 0)])
def test_commands_say_it_once_on_stderr(
    command: Callable[[pytest.MonkeyPatch, str], None],
    server: str,
    count: int,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> None:
    monkeypatch.setenv("COMPRESSOR_KEY", "k")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    for name in (LOGGER, "uvicorn.error", "asyncio"):  # what the command sets up ends with the test
        logger = logging.getLogger(name)
        monkeypatch.setattr(logger, "handlers", list(logger.handlers))
        monkeypatch.setattr(logger, "propagate", logger.propagate)
        monkeypatch.setattr(logger, "level", logger.level)
    command(monkeypatch, server)
    said = capsys.readouterr()
    assert said.err.count(SAID) == count, said.err
    assert SAID not in said.out
