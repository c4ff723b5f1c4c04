"""Workers that a server starts itself: started again when they die, stopped in order, and gone when the server is.

A worker gets its key as the first line of its standard input. That stays open as long as the server lives: where it
ends, the worker ends, too, however the server was killed.
"""

from __future__ import annotations

import json
import logging
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress

from compressor.process.groups import kill_group
from compressor.service.logs import LOGGER
from compressor.service.settings import ServiceSettings

STOP_SECONDS = 15.0
"""How long a worker may take to store its job and give it back."""
FIRST_PAUSE, LONGEST_PAUSE = 1.0, 30.0
SETTLED_SECONDS = 60.0
"""A worker that lived so long begins with the first pause again."""
_LOOK_SECONDS = 0.25

logger = logging.getLogger(LOGGER)
Command = Callable[[str], Sequence[str]]


class _Local:
    """One worker, and when it may be started again."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.process: subprocess.Popen[bytes] | None = None
        self.pause = FIRST_PAUSE
        self.began = self.not_before = 0.0


class LocalWorkers:
    """The workers of a server.

    Args:
        url: where they reach it.
        secret: makes a key for a worker of that name.
        allow_code: whether they run the user's own code: ``"no"``, ``"sandboxed"``, ``"unsandboxed"``.
        command: the command of a worker by name; another one in tests alone.
    """

    def __init__(
        self,
        settings: ServiceSettings,
        url: str,
        secret: Callable[[str], str],
        *,
        allow_code: str = "no",
        command: Command | None = None,
    ) -> None:
        self._settings, self._url, self._secret, self._code = settings, url, secret, allow_code
        self._command = command or self._usual
        self._workers = [_Local(f"local-{number + 1}") for number in range(settings.workers)]
        self._stopping = threading.Event()
        self._lock = threading.Lock()
        self._thread = threading.Thread(target=self._watch, name="local workers", daemon=True)

    def start(self) -> None:
        """Start them, and whoever dies again."""
        if self._workers:
            self._thread.start()

    def stop(self, within: float = STOP_SECONDS) -> None:
        """Ask them to give their jobs back, and wait; those that take longer are killed."""
        self._stopping.set()
        with self._lock:
            living = [
                each.process for each in self._workers if each.process is not None and each.process.poll() is None
            ]
        for process in living:
            with suppress(ProcessLookupError):  # it has ended meanwhile
                process.send_signal(signal.SIGTERM)
        until = time.monotonic() + within
        for process in living:
            with suppress(subprocess.TimeoutExpired):  # it is killed below
                process.wait(max(0.0, until - time.monotonic()))
        self.kill()

    def kill(self) -> None:
        """End those that are left, with what they started."""
        self._stopping.set()
        with self._lock:
            for each in self._workers:
                if each.process is None:
                    continue
                if each.process.poll() is None:
                    logger.warning("The worker %s did not stop in time and is killed", each.name)
                    _kill_group(each.process)
                _close(each.process)
                each.process = None

    def processes(self) -> list[int]:
        """Ids of those that live."""
        with self._lock:
            return [
                each.process.pid for each in self._workers if each.process is not None and each.process.poll() is None
            ]

    def _watch(self) -> None:
        while not self._stopping.is_set():
            with self._lock:
                for each in self._workers:
                    if not self._stopping.is_set():
                        self._look(each)
            self._stopping.wait(_LOOK_SECONDS)

    def _look(self, each: _Local) -> None:
        now = time.monotonic()
        if each.process is not None and (code := each.process.poll()) is not None:
            if now - each.began >= SETTLED_SECONDS:
                each.pause = FIRST_PAUSE
            logger.warning(
                "The worker %s ended with %s; another begins in %g s",
                each.name,
                code,
                each.pause,
                extra={"worker": each.name},
            )
            _kill_group(each.process)  # what it started and left behind
            _close(each.process)
            each.process, each.not_before = None, now + each.pause
            each.pause = min(LONGEST_PAUSE, 2 * each.pause)
        if each.process is None and now >= each.not_before:
            try:
                each.process = self._started(each.name)
            except OSError as error:
                logger.error("The worker %s cannot be started: %s", each.name, error.strerror or error)
                each.not_before, each.pause = now + each.pause, min(LONGEST_PAUSE, 2 * each.pause)
            each.began = now

    def _started(self, name: str) -> subprocess.Popen[bytes]:
        process = subprocess.Popen(
            [*self._command(name)],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            env=self._environment(os.environ),
            start_new_session=True,  # Ctrl-C is for the server, which stops them in order
        )
        assert process.stdin is not None
        with suppress(OSError):  # it died at once, which is seen in a moment
            process.stdin.write(self._secret(name).encode() + b"\n")
            process.stdin.flush()
        return process

    def _usual(self, name: str) -> Sequence[str]:
        command = [sys.executable, "-m", "compressor", "worker", "--server", self._url, "--name", name, "--local"]
        command += ["--scratch", str(self._settings.data_dir.absolute() / "work")]
        command += ["--log-format", self._settings.log_format]
        if self._code != "no":
            command.append("--allow-code" if self._code == "sandboxed" else "--allow-code=unsandboxed")
        return command

    def _environment(self, said: Mapping[str, str]) -> dict[str, str]:
        """Without the server's settings, which may hold the password of its database."""
        found = {name: value for name, value in said.items() if not name.startswith("COMPRESSOR_")}
        found["COMPRESSOR_DATA_DIR"] = str(self._settings.data_dir.absolute())
        if self._settings.datasets:
            found["COMPRESSOR_DATASETS"] = json.dumps(self._settings.datasets)
        return found


def _kill_group(process: subprocess.Popen[bytes]) -> None:
    if os.name == "posix":
        kill_group(process.pid)
    else:
        process.kill()
    if process.poll() is None:
        process.wait()


def _close(process: subprocess.Popen[bytes]) -> None:
    if process.stdin is not None:
        with suppress(OSError):  # it is dead, and reads nothing any more
            process.stdin.close()
