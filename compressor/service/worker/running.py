"""One job on this worker, from the claim to its end: three threads around a process.

The thread that calls ``run`` starts the process and watches over it; one tells the server what happens and keeps the
lease; one stores the folder. The server may be away meanwhile. A lease that is lost ends the process, and nothing more
is written.
"""

from __future__ import annotations

import errno
import json
import logging
import os
import shutil
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

from compressor.errors import CompressorError
from compressor.process.failures import explain
from compressor.service.worker.config import WorkerConfig
from compressor.service.worker.endings import death, failure, taken_log
from compressor.service.worker.errors import (
    LeaseLostError,
    LimitError,
    RequestRefusedError,
    SandboxError,
    StoppedError,
)
from compressor.service.worker.launch import JOB, Running
from compressor.service.worker.limits import Watch, out_of_memory
from compressor.service.worker.link import Claimed, Link, Patience
from compressor.service.worker.listening import Listening
from compressor.service.worker.materials import has_code, prepare, targets_of
from compressor.service.worker.outbox import Outbox
from compressor.service.worker.reporting import Reporting
from compressor.service.worker.storing import Storing
from compressor.service.worker.tables import lend, take_back
from compressor.service.worker.weights import Weights

_log = logging.getLogger(__name__)
_LOOK_SECONDS = 0.5
_LEAVE_SECONDS = 20.0
"""How long a worker that is to stop tries to store what its job has."""
_FULL_SECONDS = 600.0
"""How long the result of a job waits for room on the server."""

Start = Callable[[Path], Running]
"""Starts a child in a folder, or gives the one that waits there; it waits for ``go``."""


class _UnableError(CompressorError):
    """The machine is at fault, not the job."""


class JobRun:
    """Runs one job.

    Args:
        folder: of the job, as ``launch.make_folder`` leaves it.
        start: a child, begun before or now.
        stop: set when the worker is to stop.
        weights: pretrained ones, as far as this worker has fetched them.
    """

    def __init__(
        self,
        claimed: Claimed,
        config: WorkerConfig,
        link: Link,
        folder: Path,
        start: Start,
        stop: threading.Event,
        weights: Weights,
    ) -> None:
        self._claimed, self._config, self._link, self._folder = claimed, config, link, folder
        self._start, self._stop, self._weights = start, stop, weights
        self._stopping_since: float | None = None
        self._outbox = Outbox()
        self._patience = Patience(self._require_time, self._say)
        self._reporting = Reporting(claimed, link, self._outbox, self._say)
        self._storing = Storing(
            claimed, link, folder, config.limits, self._patience, self._say, config.snapshot_seconds
        )

    def run(self) -> bool:
        """Run it to its end, or to where it goes on elsewhere. The folder is gone afterwards.

        Returns:
            False if this worker could not run it at all, for reasons of its own, and has given it back.

        Raises:
            RequestRefusedError: the server does not take this worker's key any more.
        """
        self._say(f"attempt {self._claimed.attempt} of a {self._claimed.kind} job begins")
        self._reporting.begin()
        able = True
        try:
            with ExitStack() as stack:
                self._run(stack)
        except LeaseLostError as error:
            self._say(f"The job is no longer this worker's ({error}).")
        except StoppedError as error:
            with suppress(CompressorError):  # else the lease runs out by itself
                self._link.release(self._claimed.id, self._claimed.token)
            self._say(f"Left as it was stored last ({error}).")
        except _UnableError as error:
            _log.error("job %s: This worker cannot run it and gives it back: %s", self._claimed.id, error)
            with suppress(CompressorError):  # else the lease runs out by itself
                self._link.release(self._claimed.id, self._claimed.token)
            able = False
        finally:
            self._reporting.close()
            shutil.rmtree(self._folder, ignore_errors=True)
        if self._reporting.refused is not None:
            raise self._reporting.refused
        return able

    def _run(self, stack: ExitStack) -> None:
        try:
            job = prepare(self._claimed, self._config, self._folder, self._fetch)
            self._storing.former_log = taken_log(self._folder / "result")
            if targets_of(job["recipe"]):
                lend(self._folder)
                stack.enter_context(self._devices())
            self._fetch_weights(job["recipe"])
            (self._folder / JOB).write_text(json.dumps(job), encoding="utf-8")
            if self._reporting.cancel.is_set():
                self._end("cancelled", None)
                return
            running = self._start(self._folder)
        except (LeaseLostError, StoppedError):
            raise
        except SandboxError as error:
            raise _UnableError(str(error)) from error
        except (CompressorError, OSError) as error:
            if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
                raise _UnableError(explain(error)[1]) from error
            self._end("failed", failure(error))
            return
        stack.callback(running.kill)
        listening = Listening(running.events, self._outbox, self._reporting.progress)
        running.go()
        why = self._watched(running, listening)
        running.kill()
        listening.close()
        if why is None and listening.end == "done" and targets_of(job["recipe"]) and not has_code(job["recipe"]):
            take_back(self._folder)
        self._finish(running, listening, why)

    def _watched(self, running: Running, listening: Listening) -> str | None:
        """Look after the process until it ends or has to; returns which limit it is past, if that is why."""
        watch = Watch(self._config.limits, running.group, self._folder)
        with self._storing.meanwhile(running, listening):
            try:
                while running.exit_code() is None:
                    self._reporting.require_lease()
                    if self._reporting.cancel.is_set() or self._stop.is_set():
                        return None
                    if listening.too_much:
                        return "The job told more than a worker takes in: lines of more than a megabyte."
                    if (why := watch.exceeded()) is not None:
                        return why
                    listening.ended.wait(_LOOK_SECONDS)
                    if listening.ended.is_set():
                        self._stop.wait(0.02)  # the process ends with its pipe, or right after it
            finally:
                if running.exit_code() is None:
                    running.kill()
        return None

    def _finish(self, running: Running, listening: Listening, why: str | None) -> None:
        """Store what there is, and say how the job ended."""
        self._reporting.require_lease()
        stopped = running.exit_code()
        if why is not None:
            state, error = "failed", failure(LimitError(why))
        elif listening.end == "done":
            state, error = "done", None
        elif running.out_of_memory:
            state, error = "failed", failure(LimitError(out_of_memory(self._config.limits)))
        elif listening.end == "failed":
            state, error = "failed", listening.error
        elif self._reporting.cancel.is_set():
            state, error = "cancelled", None
        elif self._stop.is_set():
            self._leave(running)
            return
        else:
            state, error = "failed", death(stopped)
        try:
            self._storing.store(running, within=_FULL_SECONDS if state == "done" else 60.0)
        except LeaseLostError:
            raise
        except StoppedError as given_up:
            if state == "done":
                raise  # the server is away; whoever takes the job goes on from what is stored
            self._say(f"What it left is not stored ({given_up}).")
        except (CompressorError, OSError) as refused:
            if state == "done":
                state, error = "failed", failure(refused)
            self._say(f"What it left is not stored ({refused}).")
        self._end(state, error)

    def _end(self, state: str, error: Mapping[str, Any] | None) -> None:
        """Say that the job ended, once all else is told."""
        self._reporting.flush(check=self._require_time)
        self._reporting.require_lease()
        self._patience(lambda: self._link.end(self._claimed.id, self._claimed.token, state, error))
        self._say(state if error is None else f"{state}: {error['text']}")

    def _leave(self, running: Running) -> None:
        """Store what there is and give the job back."""
        with suppress(CompressorError, OSError):  # the next worker goes on from what was stored before
            self._storing.store(running, within=_LEAVE_SECONDS)
        self._reporting.flush(within=_LEAVE_SECONDS)
        self._patience(lambda: self._link.release(self._claimed.id, self._claimed.token), within=_LEAVE_SECONDS)
        self._say("given back, to go on elsewhere")

    def _fetch(self, sha256: str, place: Path, size: int) -> None:
        if size > self._config.limits.folder_bytes:
            raise RequestRefusedError(f"A file of {size} bytes is more than this worker takes.", 413)
        self._reporting.require_lease()
        if self._stop.is_set():
            raise StoppedError("the worker stops")  # before the job began, so that nothing is to be stored
        self._patience(lambda: self._link.get_blob(sha256, place, size, self._claimed.token))

    def _fetch_weights(self, recipe: Mapping[str, Any]) -> None:
        """Have the pretrained weights that the job will look for."""
        model = self._weights.wanted(recipe)
        if model is None:
            return
        reporting = self._reporting

        def go_on() -> bool:
            reporting.require_lease()
            if self._stop.is_set():
                raise StoppedError("the worker stops")
            return not reporting.cancel.is_set()  # the job is begun, and ended at once

        self._say(f"fetches the weights of {model}, if they are not here")
        if (why := self._weights.fetch(model, os.environ, go_on)) is not None:
            self._say(f"The weights of {model} cannot be fetched: {why}")

    def _require_time(self) -> None:
        """Raise ``LeaseLostError`` if the lease is another's, ``StoppedError`` a while after the worker is to stop."""
        self._reporting.require_lease()
        if self._stop.is_set():
            now = time.monotonic()
            self._stopping_since = self._stopping_since or now
            if now - self._stopping_since > _LEAVE_SECONDS:
                raise StoppedError("the worker stops")

    @contextmanager
    def _devices(self) -> Iterator[None]:
        """Inside, the job reaches devices on other machines."""
        try:
            from compressor.service.devices.relay import Relay
        except ImportError:  # no part of this worker's installation
            yield
            return
        with Relay(self._folder, self._link.client, self._claimed.id, self._claimed.token) as relay:
            self._reporting.waiting_for = lambda: relay.waiting_for
            yield
            self._reporting.waiting_for = lambda: None

    def _say(self, text: str) -> None:
        _log.info("job %s: %s", self._claimed.id, text, extra={"job": self._claimed.id})
