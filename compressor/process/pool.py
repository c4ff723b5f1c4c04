"""Work side by side in processes of this machine, which end with the process that began them.

A worker is a pool of one process, so that where one dies it is known which task it had. All of them hang on a pipe
whose other end this process holds: when it lets go of it, in an error, an interrupt or its own death, they end at once.
"""

from __future__ import annotations

import multiprocessing
import os
import pickle
import signal
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from contextvars import ContextVar
from multiprocessing.connection import Connection
from multiprocessing.reduction import ForkingPickler
from types import TracebackType
from typing import Any, Generic, TypeVar

import torch

Task = TypeVar("Task")
Found = TypeVar("Found")

#: What a death usually comes of, for the message that names the task.
WHY_DEAD = (
    "it may have run out of memory, or the main script begins work when it is imported and wants "
    "if __name__ == '__main__'"
)


class NotHandedOver(Exception):
    """What the workers are to work on cannot be pickled, or not be found again in another process."""


class Pool(Generic[Task, Found]):
    """Runs ``work(payload, task)`` for every task that is submitted, in up to ``workers`` processes.

    Each process has its share of the threads of this one, and at least one. It is started with its first task and
    stays for the next ones. Tasks begin in the order in which they were submitted and end in any order. An error, of
    a task or in the ``with`` block, stops what is running.

    Args:
        work: a function of a module, found again by its name in the workers.
        payload: what all tasks have in common; it travels once per worker, pickled by value.
        died: the error to raise where a process dies, from the task it had.

    Raises:
        NotHandedOver: the payload cannot be pickled; nothing has been run.

    For example, with ``score(data, network)`` in a module::

        with Pool(score, data, workers=4, died=lambda network: CompressorError(f"{network} died")) as pool:
            for network in networks:
                pool.submit(network)
            scores = dict(pool.results())
    """

    def __init__(
        self, work: Callable[[Any, Task], Found], payload: Any, workers: int, *, died: Callable[[Task], Exception]
    ) -> None:
        try:
            # By value: multiprocessing's own way moves tensors into shared memory, of which a container has little.
            self._parcel = pickle.dumps((work, payload), protocol=pickle.HIGHEST_PROTOCOL)
        except Exception as error:  # whatever a __getstate__ of somebody else's raises
            raise NotHandedOver(f"{type(error).__name__}: {error}") from error
        self._died, self._workers = died, workers
        self._threads = max(1, torch.get_num_threads() // workers)
        self._context = multiprocessing.get_context("spawn")
        self._hung_on, self._held = self._context.Pipe(duplex=False)
        self._all: list[ProcessPoolExecutor] = []
        self._idle: list[ProcessPoolExecutor] = []
        self._waiting: deque[Task] = deque()
        self._running: dict[Future[Found], tuple[ProcessPoolExecutor, Task]] = {}

    def submit(self, task: Task) -> None:
        """Hand in a task; also while results are taken."""
        self._waiting.append(task)
        self._start()

    def results(self) -> Iterator[tuple[Task, Found]]:
        """Each task with what it gave, as they end, until none is left.

        Raises:
            NotHandedOver: the payload could not be opened in a worker.
            Exception: what a task raised, or ``died`` of the task whose process ended.
        """
        while self._running:
            for future in wait(self._running, return_when=FIRST_COMPLETED).done:
                worker, task = self._running.pop(future)
                try:
                    found = future.result()
                except BrokenProcessPool as error:
                    raise self._died(task) from error
                self._idle.append(worker)
                self._start()
                yield task, found
                self._start()

    def close(self, *, now: bool = False) -> None:
        """End the workers, ``now`` or when what they run is done. Harmless when called again."""
        self._waiting.clear()
        if now:
            self._held.close()  # workers in the middle of a task end, and their pools have nothing to wait for
        for worker in self._all:
            worker.shutdown(wait=True, cancel_futures=True)
        self._held.close()
        self._hung_on.close()

    def __enter__(self) -> Pool[Task, Found]:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close(now=error is not None)

    def _start(self) -> None:
        while self._waiting and (self._idle or len(self._all) < self._workers):
            if not self._idle:
                arguments = self._parcel, self._hung_on, self._threads
                self._all.append(ProcessPoolExecutor(1, self._context, _prepare, arguments))
                self._idle.append(self._all[-1])
            worker, task = self._idle.pop(), self._waiting.popleft()
            self._running[worker.submit(_run, task)] = worker, task


def side_by_side(
    work: Callable[[Any, Task], Found],
    payload: Any,
    tasks: Sequence[Task],
    workers: int,
    done: Callable[[Task, Found], None],
    *,
    died: Callable[[Task], Exception],
) -> None:
    """Run all ``tasks`` in a ``Pool``, or in what ``pools_by`` put in its place; ``done`` is told of each as it ends,
    in this thread. Raises as the pool does."""
    make = _make.get() or Pool
    with make(work, payload, max(1, workers), died=died) as pool:
        for task in tasks:
            pool.submit(task)
        for task, found in pool.results():
            done(task, found)


_make: ContextVar[Callable[..., Any] | None] = ContextVar("pool", default=None)


@contextmanager
def pools_by(make: Callable[..., Any]) -> Iterator[None]:
    """Inside, what goes side by side runs in what ``make`` makes, which has the arguments and methods of ``Pool``."""
    token = _make.set(make)
    try:
        yield
    finally:
        _make.reset(token)


_opened: tuple[Callable[[Any, Any], Any], Any] | None = None
"""In a worker: what to do with what, once the first task has opened it."""
_parcel = b""
"""In a worker: the same as it came, opened by the first task so that its error finds the way back."""


def _prepare(parcel: bytes, hung_on: Connection, threads: int) -> None:
    """Begin a worker."""
    global _parcel
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a Ctrl-C reaches all processes of a terminal; the first decides
    torch.set_num_threads(threads)
    threading.Thread(target=_end_with, args=(hung_on,), daemon=True).start()
    _parcel = parcel


def _end_with(hung_on: Connection) -> None:
    """End this process when nobody holds the pipe's other end any more."""
    hung_on.poll(None)
    os._exit(1)


def _run(task: Any) -> Any:
    global _opened, _parcel
    if _opened is None:
        try:
            # The program's own objects, from the program itself through a pipe of its own: as arguments of processes
            # travel.
            opened: Any = ForkingPickler.loads(_parcel)
        except Exception as error:
            raise NotHandedOver(f"{type(error).__name__}: {error}") from error
        _opened, _parcel = opened, b""
    work, payload = _opened
    return work(payload, task)
