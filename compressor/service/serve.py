"""The running server: its port, its lock, the app, local workers, and an end that loses nothing."""

from __future__ import annotations

import asyncio
import errno
import logging
import os
import socket
import sys
from contextlib import ExitStack
from types import FrameType
from typing import Literal

import anyio.to_thread
import uvicorn

from compressor.errors import UsageError
from compressor.service.access.hosts import check_binding
from compressor.service.access.slow import patient_protocol
from compressor.service.api.app import create_app
from compressor.service.api.watchers import Closing
from compressor.service.local_workers import LocalWorkers
from compressor.service.logs import LOGGER, set_up
from compressor.service.queue.keeper import Keeper
from compressor.service.services import server_lock, services_of
from compressor.service.settings import ServiceSettings

Code = Literal["no", "sandboxed", "unsandboxed"]
BACKLOG = 512
GRACE_SECONDS = 5
"""How long answers that have begun may take once the server stops."""

logger = logging.getLogger(LOGGER)


def serve(settings: ServiceSettings, *, allow_code: Code = "no") -> int:
    """Serve until SIGTERM or Ctrl-C; the exit code, 0 where that was asked for.

    Args:
        allow_code: whether local workers run the user's own code.

    Raises:
        UsageError: the port is in use, another server has the folder, or others could reach it and there are no keys.
        NewerDatabaseError: a newer version of this program wrote the database.
        DatabaseAwayError: the database does not answer.
    """
    set_up(settings.log_format)
    with ExitStack() as stack:
        _make_folder(settings)
        if (lock := server_lock(settings)) is not None:
            stack.callback(lock.release)
        listening = stack.enter_context(bound(settings.host, settings.port))
        services = services_of(settings)
        stack.callback(services.close)
        app = create_app(services)
        check_binding(settings.host, app.state.access.is_closed())
        stack.enter_context(Keeper(services))
        app.state.names.find_soon()
        url = address(settings.host, listening)
        workers = LocalWorkers(settings, url, app.state.access.run_secret, allow_code=allow_code)
        stack.callback(workers.kill)
        config = uvicorn.Config(
            app,
            http=patient_protocol(),
            ws="none",
            lifespan="on",
            log_config=None,
            access_log=False,
            proxy_headers=False,
            server_header=False,
            timeout_graceful_shutdown=GRACE_SECONDS,
            timeout_keep_alive=30,
        )
        server = Server(config, workers, app.state.closing, _greeting(settings, url))
        server.run(sockets=[listening])
        return 0 if server.was_stopped else 1


class Server(uvicorn.Server):
    """Uvicorn, which lets local workers give their jobs back before it stops to listen, and ends streams.

    Attributes:
        was_stopped: whether a signal ended it.
    """

    def __init__(self, config: uvicorn.Config, workers: LocalWorkers, closing: Closing, greeting: str) -> None:
        super().__init__(config)
        self._workers, self._closing, self._greeting = workers, closing, greeting
        self._ending: asyncio.Task[None] | None = None
        self.was_stopped = False

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets=sockets)
        if self.started:
            print(self._greeting, file=sys.stderr, flush=True)
            self._workers.start()

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """The first signal stops in order, the second at once. None is raised again: stopping is what was asked for."""
        if self.was_stopped:
            self.force_exit = True
            self.should_exit = True
        self.was_stopped = True

    async def on_tick(self, counter: int) -> bool:
        if self.was_stopped and self._ending is None:
            self._ending = asyncio.create_task(self._end())
        return await super().on_tick(counter)

    async def _end(self) -> None:
        logger.info("Stopping; workers give their jobs back")
        try:
            await anyio.to_thread.run_sync(self._workers.stop)
        finally:
            self._closing.set()
            self.should_exit = True


def bound(host: str, port: int) -> socket.socket:
    """A socket that listens there. Raises ``UsageError`` that says why not, and what to do."""
    try:
        family, kind, protocol, _, place = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
    except OSError as error:
        raise UsageError(f"--host {host} is no address of this machine ({error.strerror}); try 127.0.0.1.") from error
    listening = socket.socket(family, kind, protocol)
    try:
        if os.name == "posix":  # elsewhere this lets two servers share a port
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind(place)
        listening.listen(BACKLOG)
        listening.setblocking(False)
    except OSError as error:
        listening.close()
        raise UsageError(_why_not(error, host, port)) from error
    return listening


def _why_not(error: OSError, host: str, port: int) -> str:
    if error.errno == errno.EADDRINUSE:
        return f"Port {port} of {host} is in use; stop what listens there, or choose another with --port (0: any)."
    if error.errno in (errno.EACCES, errno.EPERM):
        return f"Port {port} is not for this user; choose one above 1023 with --port."
    if error.errno == errno.EADDRNOTAVAIL:
        return f"--host {host} is no address of this machine; try 127.0.0.1."
    return f"Nothing can listen on {host} port {port} ({error.strerror}); choose others with --host and --port."


def address(host: str, listening: socket.socket) -> str:
    """The URL under which this machine reaches the server."""
    port = listening.getsockname()[1]
    reached = {"0.0.0.0": "127.0.0.1", "::": "::1", "": "127.0.0.1"}.get(host, host)
    return f"http://[{reached}]:{port}" if ":" in reached else f"http://{reached}:{port}"


def _greeting(settings: ServiceSettings, url: str) -> str:
    count = settings.workers
    workers = "no workers of its own" if count == 0 else "1 worker" if count == 1 else f"{count} workers"
    return f"Serving on {url} with {workers}; data in {settings.data_dir}. Ctrl-C stops it."


def _make_folder(settings: ServiceSettings) -> None:
    try:
        settings.data_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
    except OSError as error:
        raise UsageError(
            f"The folder {settings.data_dir} cannot be made: {error.strerror}; name another with --data-dir."
        ) from error
