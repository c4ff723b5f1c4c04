"""Trials side by side, each in a process of its own.

A worker is a pool of one process, so that where one dies it is known which trial it had. All of them hang on a pipe
whose other end the job holds: when the job lets go of it, in an error, an interrupt or its own death, they end at once.
What they had trained lies in their checkpoints.
"""

from __future__ import annotations

import multiprocessing
import os
import pickle
import signal
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from multiprocessing.connection import Connection
from multiprocessing.reduction import ForkingPickler
from pathlib import Path
from typing import Any

import torch

from compressor.errors import CompressorError
from compressor.pipeline.grid import Recipe
from compressor.pipeline.trial import Ground, run_trial
from compressor.report.tuning import Trial

Task = tuple[int, Recipe, Path | None]


class NotHandedOver(Exception):
    """Model, data or loss cannot be pickled, or not be found again in another process."""


def run_side_by_side(ground: Ground, tasks: Sequence[Task], workers: int, done: Callable[[Trial], None]) -> None:
    """Run the trials in up to ``workers`` processes; ``done`` is told of each as it ends, in this thread.

    Each process has its share of the threads of this one, and at least one.

    Raises:
        NotHandedOver: nothing, or not all, has been run, as it cannot be handed over.
        CompressorError: a process died; names its trial. The others are stopped.
    """
    try:
        # By value: multiprocessing's own way moves the tensors into shared memory, of which a container has little.
        parcel = pickle.dumps(ground, protocol=pickle.HIGHEST_PROTOCOL)
    except Exception as error:  # whatever a __getstate__ of somebody else's raises
        raise NotHandedOver(f"{type(error).__name__}: {error}") from error
    count = min(workers, len(tasks))
    threads = max(1, torch.get_num_threads() // workers)
    context = multiprocessing.get_context("spawn")
    hung_on, held = context.Pipe(duplex=False)
    pools: list[ProcessPoolExecutor] = []
    waiting = list(reversed(tasks))
    running: dict[Future[Trial], tuple[ProcessPoolExecutor, Task]] = {}

    def start(pool: ProcessPoolExecutor) -> None:
        if waiting:
            task = waiting.pop()
            running[pool.submit(_work, *task)] = pool, task

    try:
        for _ in range(count):
            pools.append(ProcessPoolExecutor(1, context, _prepare, (parcel, hung_on, threads)))
            start(pools[-1])
        while running:
            for future in wait(running, return_when=FIRST_COMPLETED).done:
                pool, (number, recipe, _) = running.pop(future)
                try:
                    trial = future.result()
                except BrokenProcessPool as error:
                    raise CompressorError(
                        f"The process of trial {number} of the tuning ({recipe}) died; it may have run out of memory, "
                        "or the main script begins work when it is imported and wants if __name__ == '__main__'. "
                        "Trials that had ended are kept: run again, with fewer trial_workers (--trial-workers)."
                    ) from error
                done(trial)
                start(pool)
    except BaseException:
        held.close()  # workers in the middle of a trial end, and their pools have nothing to wait for
        raise
    finally:
        for pool in pools:
            pool.shutdown(wait=True, cancel_futures=True)
        held.close()
        hung_on.close()


_ground: Ground | bytes | None = None
"""In a worker: what was handed over, opened by the first trial so that its error finds the way back."""


def _prepare(parcel: bytes, hung_on: Connection, threads: int) -> None:
    """Begin a worker."""
    global _ground
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a Ctrl-C reaches all processes of a terminal; the job decides
    torch.set_num_threads(threads)
    threading.Thread(target=_end_with, args=(hung_on,), daemon=True).start()
    _ground = parcel


def _end_with(hung_on: Connection) -> None:
    """End this process when nobody holds the pipe's other end any more."""
    hung_on.poll(None)
    os._exit(1)


def _work(number: int, recipe: Recipe, checkpoint: Path | None) -> Trial:
    global _ground
    if isinstance(_ground, bytes):
        try:
            # The job's own objects, from the job itself through a pipe of its own: as arguments of processes travel.
            opened: Any = ForkingPickler.loads(_ground)
        except Exception as error:
            raise NotHandedOver(f"{type(error).__name__}: {error}") from error
        _ground = opened
    assert isinstance(_ground, Ground)
    return run_trial(_ground, number, recipe, checkpoint)
