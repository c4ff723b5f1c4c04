"""The agent's hold on the process that measures: it is killed when it hangs, dies or is no longer wanted."""

from __future__ import annotations

import json
import os
import selectors
import signal
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import suppress
from typing import IO, Any

from compressor.errors import CompressorError
from compressor.process.groups import kill_group
from compressor.service.devices.measuring import Setup
from compressor.service.devices.protocol import Request

_LONGEST = 64 << 20  # bytes of an answer
_LAST = 2000  # bytes of what it printed that are looked at


class MeasuringDiedError(CompressorError):
    """The process that measured ended, or was ended, before it answered; the message says how."""


class Measurer:
    """Starts the process when it is first needed, and again after it died.

    Args:
        setup: what it measures on.
    """

    def __init__(self, setup: Setup) -> None:
        self.setup = setup
        self._process: subprocess.Popen[bytes] | None = None
        self._printed: IO[bytes] | None = None
        self._lock = threading.Lock()
        self._killed = False

    def ask(self, request: Request, *, limit_s: float) -> dict[str, Any]:
        """One answer.

        Raises:
            MeasuringDiedError: there is none within ``limit_s`` seconds, or the process died; it is gone afterwards.
        """
        with self._lock:
            self._killed = False
            process = self._running()
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            process.stdin.write(json.dumps(request.to_json()).encode() + b"\n")
            process.stdin.flush()
            line = _line(process.stdout.fileno(), time.monotonic() + limit_s)
        except OSError:
            line = b""
        if line is None:
            self._end(process)
            raise MeasuringDiedError(f"it did not answer within {limit_s:g} s and was ended")
        if not line:
            raise MeasuringDiedError(self._why(process))
        found: dict[str, Any] = json.loads(line)
        return found

    def kill(self) -> None:
        """End the process, whoever waits for it."""
        with self._lock:
            self._killed = True
            if self._process is not None:
                kill_group(self._process.pid)

    def close(self) -> None:
        """End the process and wait for it."""
        with self._lock:
            if self._process is not None:
                self._end(self._process)

    def _running(self) -> subprocess.Popen[bytes]:
        if self._process is not None and self._process.poll() is None:
            return self._process
        if self._printed is not None:
            self._printed.close()
        self._printed = tempfile.TemporaryFile()  # noqa: SIM115  (for as long as the process lives)
        self._process = subprocess.Popen(
            [sys.executable, "-m", "compressor.service.devices.measuring", self.setup.to_text()],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._printed,
            start_new_session=True,  # what it starts is killed with it
        )
        return self._process

    def _why(self, process: subprocess.Popen[bytes]) -> str:
        """How a process ended that should not have."""
        with suppress(subprocess.TimeoutExpired):  # it hangs; it is killed below
            process.wait(5)
        code = process.poll()
        self._end(process)
        if self._killed:
            return "it was ended"
        if code is not None and code < 0:
            name = signal.Signals(-code).name if -code in set(signal.Signals) else str(-code)
            return f"it crashed with {name}{' (out of memory?)' if name == 'SIGKILL' else ''}"
        said = self._last_line()
        return f"it ended with code {code}{f': {said}' if said else ''}"

    def _last_line(self) -> str:
        if self._printed is None:
            return ""
        size = self._printed.seek(0, os.SEEK_END)
        self._printed.seek(max(0, size - _LAST))
        lines = self._printed.read().decode(errors="replace").strip().splitlines()
        return lines[-1][:300] if lines else ""

    def _end(self, process: subprocess.Popen[bytes]) -> None:
        kill_group(process.pid)
        for stream in (process.stdin, process.stdout):
            with suppress(OSError):  # it is dead, and reads nothing any more
                if stream is not None:
                    stream.close()
        process.wait()
        if self._process is process:
            self._process = None


def _line(descriptor: int, deadline: float) -> bytes | None:
    """Bytes up to the end of a line, nothing if the other end closed, ``None`` if time is up."""
    found = bytearray()
    with selectors.DefaultSelector() as selector:
        selector.register(descriptor, selectors.EVENT_READ)
        while not found.endswith(b"\n"):
            if not selector.select(max(0.0, deadline - time.monotonic())):
                return None
            part = os.read(descriptor, 1 << 16)
            if not part or len(found) > _LONGEST:
                return b""
            found += part
    return bytes(found)
