"""The worker: claims a job, runs it, claims the next, until it is told to stop."""

from __future__ import annotations

import logging
import os
import secrets
import shutil
import signal
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from functools import cache
from pathlib import Path
from types import FrameType

from compressor.errors import CompressorError, UsageError
from compressor.service.worker.cgroups import MemoryGroups, NoGroupsError, find_groups
from compressor.service.worker.compiled import compile_packages
from compressor.service.worker.config import WorkerConfig
from compressor.service.worker.errors import RequestRefusedError, SandboxError, StoppedError
from compressor.service.worker.launch import Running, launch, make_folder
from compressor.service.worker.limits import require_usable
from compressor.service.worker.link import Claimed, Link, Patience
from compressor.service.worker.running import JobRun
from compressor.service.worker.sandbox import Sandbox, find_sandbox
from compressor.service.worker.weights import Weights
from compressor.storage.lock import FolderLock
from compressor.storage.version import VERSION

_log = logging.getLogger(__name__)
_UNABLE_SECONDS = 15.0
"""How long a worker leaves jobs to others after one that it could not run."""


class Worker:
    """Takes jobs from a server, one at a time.

    Args:
        jobs: how many to run; None: until ``stop``.

    Raises:
        UsageError: it is told what cannot be. SandboxError: the user's own code is to be run in a sandbox, and none
            works here. MissingDependencyError: httpx is not installed.
    """

    def __init__(self, config: WorkerConfig, *, jobs: int | None = None) -> None:
        require_usable(config.limits)
        self.config, self._left = config, jobs
        self._stop = threading.Event()
        self._sandbox = sandbox_of(config)
        self._link = Link(config.server, config.key, version=VERSION)
        self._patience = Patience(self._require_time, lambda text: _log.warning("%s", text))
        self._groups: MemoryGroups | None = None
        self._spare: Running | None = None
        self._weights = Weights(config)

    def stop(self) -> None:
        """Stop the running job where it can go on elsewhere, then return from ``run``. From any thread."""
        self._stop.set()

    def stop_on_signals(self) -> None:
        """Let SIGTERM and SIGINT stop it; the second one ends the process at once. In the main thread."""

        def handle(number: int, frame: FrameType | None) -> None:
            if self._stop.is_set():
                signal.signal(number, signal.SIG_DFL)
                signal.raise_signal(number)
            self._stop.set()

        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, handle)

    def run(self) -> int:
        """Work; returns how many jobs were run.

        Raises:
            RequestRefusedError: the server does not take the key, or knows no workers.
            UsageError: another worker of this name works on this machine.
            CompressorError: the scratch folder cannot be written.
        """
        done, config = 0, self.config
        with ExitStack() as stack:
            stack.callback(self._link.close)
            stack.callback(_locked(config).release)
            self._clean()
            stack.callback(self._clean)
            stack.callback(self._drop_spare)
            compile_packages()
            self._weights.make_places(os.environ)
            self._groups = groups_here()
            apart = "in a sandbox" if self._sandbox is not None else "in a process group of its own, without a sandbox"
            _log.info("worker %s of %s: each job runs %s", config.name, config.server, apart)
            while not self._stop.is_set() and self._left != 0:
                self._warm_up()
                try:
                    claimed = self._patience(self._claim)
                except StoppedError:
                    break
                except RequestRefusedError as error:
                    raise _refused(error, config) from error
                if claimed is None:
                    continue
                if self._stop.is_set():
                    with suppress(CompressorError):  # else the lease runs out by itself
                        self._link.release(claimed.id, claimed.token)
                    break
                self._run(claimed)
                done += 1
                self._left = None if self._left is None else self._left - 1
        return done

    def _claim(self) -> Claimed | None:
        config = self.config
        return self._link.claim(config.name, config.all_labels, VERSION, config.wait_seconds)

    def _run(self, claimed: Claimed) -> None:
        spare, self._spare = self._spare, None
        folder = self._new_folder() if spare is None else spare.folder

        def start(place: Path) -> Running:
            if spare is not None and spare.exit_code() is None:
                return spare
            return launch(self.config, self._sandbox, place, self._groups)

        try:
            able = JobRun(claimed, self.config, self._link, folder, start, self._stop, self._weights).run()
        finally:
            if spare is not None:
                spare.kill()  # where the job did not come to need it
        if not able:
            self._stop.wait(_UNABLE_SECONDS)

    def _warm_up(self) -> None:
        """Have a child that has imported what it needs before there is a job for it."""
        if self._spare is not None and self._spare.exit_code() is not None:
            self._drop_spare()
        if self.config.warm and self._spare is None and not self._stop.is_set():
            with suppress(SandboxError, OSError):  # told with the job that needs it
                self._spare = launch(self.config, self._sandbox, self._new_folder(), self._groups)

    def _drop_spare(self) -> None:
        spare, self._spare = self._spare, None
        if spare is not None:
            spare.kill()
            shutil.rmtree(spare.folder, ignore_errors=True)

    def _new_folder(self) -> Path:
        folder = self.config.folder / "jobs" / secrets.token_hex(6)
        make_folder(folder)
        return folder

    def _clean(self) -> None:
        """Remove folders of jobs: what a killed worker left goes on elsewhere, from what was stored."""
        shutil.rmtree(self.config.folder / "jobs", ignore_errors=True)
        with usable(self.config.folder):
            (self.config.folder / "jobs").mkdir(exist_ok=True)

    def _require_time(self) -> None:
        if self._stop.is_set():
            raise StoppedError("the worker stops")


def _refused(error: RequestRefusedError, config: WorkerConfig) -> RequestRefusedError:
    """What to do about a server that gives no jobs."""
    if error.is_about_the_key:
        cure = "give it a key with the scope agent, by COMPRESSOR_KEY or --key-file (compress keys create makes one)"
    else:
        cure = "see whether --server names a service that compress serve runs"
    return RequestRefusedError(f"{config.server} gives this worker no jobs: {error} To go on, {cure}.", error.status)


def _locked(config: WorkerConfig) -> FolderLock:
    """The folder of a worker, for this process alone. Raises ``UsageError``."""
    with usable(config.folder):
        config.scratch.mkdir(parents=True, exist_ok=True)
        config.folder.mkdir(mode=0o700, exist_ok=True)  # what users send is nobody else's concern
    try:
        return FolderLock.acquire(config.folder / "lock", config.folder)
    except UsageError as error:
        raise UsageError(
            f"Another worker is called {config.name!r} on this machine; name this one with --name. ({error})"
        ) from error


@cache
def groups_here() -> MemoryGroups | None:
    """Where control groups of jobs are made; None where that cannot be, which is said."""
    try:
        groups = find_groups()
    except NoGroupsError as error:
        _log.info("The memory of jobs is looked at twice a second, and not held by the kernel: %s.", error)
        return None
    groups.clean()
    return groups


@contextmanager
def usable(folder: Path) -> Iterator[None]:
    """Tell of a scratch folder that cannot be used in a line."""
    try:
        yield
    except OSError as error:
        raise UsageError(f"{folder} cannot be used: {error.strerror}; name another folder with --scratch.") from error


def sandbox_of(config: WorkerConfig) -> Sandbox | None:
    """The sandbox that jobs run in; None where there is none, which is said.

    Raises:
        SandboxError: the user's own code is to be run in one.
    """
    if config.sandbox is False:
        return None
    try:
        return find_sandbox()
    except SandboxError as error:
        if config.code == "sandboxed":
            raise SandboxError(
                f"--allow-code needs a sandbox for jobs, and {error}. Code of others can do here whatever this user "
                "can, without one: if that is wanted, pass --allow-code=unsandboxed."
            ) from error
        loud = (
            "CODE OF USERS RUNS WITHOUT A SANDBOX and can read all that this user can"
            if config.code != "no"
            else ("jobs run in process groups, with network")
        )
        _log.warning("No sandbox: %s; %s.", error, loud)
        return None
