"""Work side by side as tasks of Ray, wherever they run: what ``Pool`` is to the processes of one machine.

A task whose process or node is lost is begun anew elsewhere; what a task raises is raised as it is. Ray moves what it
is given by pickling, as its own protocol does, so that whoever can speak to a cluster can run code on it.
"""

from __future__ import annotations

import math
import os
import pickle
import sys
import traceback
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from multiprocessing.reduction import ForkingPickler
from pathlib import Path
from types import TracebackType
from typing import Any, Generic, TypeVar

from compressor.errors import CompressorError, UsageError
from compressor.process.pool import NotHandedOver, pools_by
from compressor.process.ray_cluster import RayCluster, RaySettings

Task = TypeVar("Task")
Found = TypeVar("Found")

_STOP_S = 10.0
WHY_LOST = "its machine may have run out of memory; ray status and the logs of Ray there say more"


class RayPool(Generic[Task, Found]):
    """Runs ``work(payload, task)`` for every task that is submitted, on a Ray that is connected to.

    As ``Pool``: an error, of a task or in the ``with`` block, stops what is running. Work inside a task that goes side
    by side does so on the same Ray.

    Args:
        work: a function of a module, which nodes have, too.
        payload: what all tasks have in common; it travels once per node, pickled by value.
        workers: most tasks that are begun at a time; None leaves it to what the cluster has.
        died: the error to raise where a task is lost more often than ``settings.tries``.
        needs: resources that a task takes beside those of ``settings``.
        stop_s: how long tasks that are stopped have to end by themselves, by a ``KeyboardInterrupt``, before their
            processes are killed.
        offers: resources that a Ray of this machine's own has beside cores.
        shared: a file that every node must see as it is here, for tasks whose files lie in its folder.

    Raises:
        NotHandedOver: the payload cannot be pickled; nothing has been run.
    """

    def __init__(
        self,
        work: Callable[[Any, Task], Found],
        payload: Any,
        workers: int | None = None,
        *,
        died: Callable[[Task], Exception],
        settings: RaySettings | None = None,
        needs: Callable[[Task], Mapping[str, float]] = lambda task: {},
        stop_s: float = 0.0,
        offers: Mapping[str, float] | None = None,
        shared: Path | None = None,
    ) -> None:
        try:
            parcel = pickle.dumps((work, payload), protocol=pickle.HIGHEST_PROTOCOL)
        except Exception as error:  # whatever a __getstate__ of somebody else's raises
            raise NotHandedOver(f"{type(error).__name__}: {error}") from error
        self._settings = settings or RaySettings()
        content = None if shared is None else (str(shared.absolute()), shared.read_bytes())
        cpus = None if workers is None else math.ceil(workers * self._settings.cpus)
        offered = {**self._settings.resources, **(offers or {})}
        self._cluster = RayCluster(self._settings.address, cpus=cpus, resources=offered).__enter__()
        self._ray = self._cluster.ray
        self._died, self._workers, self._needs, self._stop_s = died, workers, needs, stop_s
        self._place = _Place(str(Path.cwd()), tuple(sys.path), content, self._settings)
        self._parcel = self._ray.put(parcel)
        self._waiting: deque[Task] = deque()
        self._running: dict[Any, Task] = {}

    def submit(self, task: Task) -> None:
        """Hand in a task; also while results are taken. Raises ``UsageError`` if no node has what it takes."""
        self._cluster.require(self._settings.with_needs(self._needs(task)).demand, "a task")
        self._waiting.append(task)
        self._start()

    def results(self) -> Iterator[tuple[Task, Found]]:
        """Each task with what it gave, as they end, until none is left.

        Raises:
            Exception: what a task raised, or ``died`` of one that was lost too often.
        """
        while self._running:
            for ref in self._ray.wait(list(self._running), num_returns=1)[0]:
                task = self._running.pop(ref)
                found = self._got(ref, task)
                if isinstance(found, _Raised):
                    raise found.error from _Elsewhere(found.text)
                self._start()
                yield task, found
                self._start()

    def close(self, *, now: bool = False) -> None:
        """End what runs, ``now`` or when it is done, and let go of the cluster. Harmless when called again."""
        self._waiting.clear()
        running, self._running = list(self._running), {}
        if running and now:
            if self._stop_s:
                for ref in running:
                    self._ray.cancel(ref, force=False)
                running = self._ray.wait(running, num_returns=len(running), timeout=self._stop_s)[1]
            for ref in running:
                self._ray.cancel(ref, force=True, recursive=True)
        if running:
            self._ray.wait(running, num_returns=len(running), timeout=_STOP_S if now else None)
        self._parcel = None
        self._cluster.__exit__(None, None, None)

    def __enter__(self) -> RayPool[Task, Found]:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close(now=error is not None)

    def _start(self) -> None:
        while self._waiting and (self._workers is None or len(self._running) < self._workers):
            task = self._waiting.popleft()
            given = self._settings.with_needs(self._needs(task))
            remote = self._ray.remote(_run).options(
                num_cpus=given.cpus,
                num_gpus=given.gpus,
                resources=dict(given.resources) or None,
                max_retries=given.tries,
                retry_exceptions=False,
                name="compressor",
            )
            self._running[remote.remote(self._parcel, task, self._place, int(given.cpus))] = task

    def _got(self, ref: Any, task: Task) -> Any:
        try:
            return self._ray.get(ref)
        except self._ray.exceptions.RayTaskError as error:  # what could not even be read there
            raise NotHandedOver(str(error.cause)) from error
        except self._ray.exceptions.RayError as error:
            raise self._died(task) from error


@contextmanager
def on_ray(settings: RaySettings) -> Iterator[None]:
    """Inside, what goes side by side does so on Ray, which is connected to when it is first needed."""
    with ExitStack() as stack:
        connected = False

        def make(work: Callable[[Any, Any], Any], payload: Any, workers: int, *, died: Any) -> RayPool[Any, Any]:
            nonlocal connected
            if not connected:
                stack.enter_context(RayCluster(settings.address, resources=settings.resources))
                connected = True
            return RayPool(work, payload, workers, died=died, settings=settings)

        with pools_by(make):
            yield


@dataclass(frozen=True)
class _Place:
    """Where tasks come from, so that they find there what they would find here.

    Attributes:
        folder: the working folder. path: where modules are looked for.
        shared: a file that must be there as it is here, and its content.
    """

    folder: str
    path: tuple[str, ...]
    shared: tuple[str, bytes] | None
    settings: RaySettings


@dataclass(frozen=True)
class _Raised:
    """An error as a result: Ray would wrap it, and not find some of them again."""

    error: BaseException
    text: str


class _Elsewhere(Exception):
    """The traceback of an error on another machine, as text."""

    def __str__(self) -> str:
        return f"\n{self.args[0]}"


def _run(parcel: bytes, task: Any, place: _Place, threads: int) -> Any:
    """In a process of Ray: do one task."""
    try:
        _enter(place, threads)
        work, payload = _opened(parcel)
        with pools_by(partial(RayPool, settings=place.settings)):
            return work(payload, task)
    except KeyboardInterrupt:
        raise  # that is Ray, which cancels
    except BaseException as error:  # also what ends a process: here it is the failure of a task
        return _Raised(_portable(error), "".join(traceback.format_exception(error)))


def _enter(place: _Place, threads: int) -> None:
    """Make this process work as the one that the task comes from."""
    import torch

    torch.set_num_threads(max(1, threads))
    sys.path.extend(entry for entry in place.path if entry and entry not in sys.path)
    node = os.uname().nodename if hasattr(os, "uname") else "a node"
    try:
        os.chdir(place.folder)
        same = place.shared is None or Path(place.shared[0]).read_bytes() == place.shared[1]
    except OSError as error:
        raise _unshared(node, str(error.filename)) from error
    if not same and place.shared is not None:
        raise _unshared(node, place.shared[0])


def _unshared(node: str, path: str) -> UsageError:
    return UsageError(
        f"The node {node} does not see {path} as it is here; work on several nodes needs a folder that all of them "
        "share, at the same place: start there, with --out in it."
    )


_last: tuple[bytes, Any] | None = None
"""In a process of Ray: what it opened last, for the next task of the same pool."""


def _opened(parcel: bytes) -> Any:
    global _last
    if _last is None or _last[0] != parcel:
        # The program's own objects, from the program itself: as tasks of Ray travel.
        try:
            _last = parcel, ForkingPickler.loads(parcel)
        except Exception as error:
            raise NotHandedOver(f"{type(error).__name__}: {error}") from error
    return _last[1]


def _portable(error: BaseException) -> BaseException:
    """The error itself if it survives the way back, else the nearest of ours that says the same."""
    try:
        if type(ForkingPickler.loads(ForkingPickler.dumps(error))) is type(error):
            return error
    except Exception:
        pass  # its own code packs it, and may raise anything
    known = [kind for kind in type(error).__mro__ if kind.__module__ == CompressorError.__module__]
    text = str(error) if isinstance(error, CompressorError) else repr(error)
    found: BaseException = (known[0] if known else CompressorError)(text)
    return found
