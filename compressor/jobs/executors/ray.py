"""Jobs as tasks of Ray, on the machines of a cluster or on this one."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import Any

from compressor.errors import CompressorError
from compressor.jobs.executors.base import JobTask
from compressor.jobs.executors.several import run_together
from compressor.process.ray_cluster import RaySettings
from compressor.process.ray_pool import WHY_LOST, RayPool
from compressor.storage.lock import patient

_LOCK_S = 90.0
"""How long a node that is lost may go on working in a folder until it notices itself."""


class RayExecutor:
    """Runs tasks on Ray. One whose node or process is lost is begun anew on another, where it goes on from the last
    stage that it stored; an error of a task is raised as it is.

    Args:
        settings: which Ray, and what each task is given.
        workers: most tasks at a time; None leaves it to what the cluster has.
        processes: how many each task is done by together, on its node, with as many GPUs if it takes any.
        stop_s: how long tasks have to end, when they are stopped, once they have got a ``KeyboardInterrupt``.
        offers: what a Ray of this machine's own has beside cores, by name.
        shared: a file that every node must see as it is here, which shows that they share the jobs' folder.

    Raises:
        MissingDependencyError: Ray is not installed. CompressorError: the cluster cannot be reached.
    """

    def __init__(
        self,
        settings: RaySettings | None = None,
        *,
        workers: int | None = None,
        processes: int = 1,
        stop_s: float = 0.0,
        offers: Mapping[str, float] | None = None,
        shared: Path | None = None,
    ) -> None:
        given = settings or RaySettings()
        given = replace(given, cpus=max(given.cpus, processes)) if processes > 1 else given
        self._pool: RayPool[JobTask, Any] = RayPool(
            _run,
            _Together(processes, max(1, int(given.cpus) // processes)),
            workers,
            died=_died,
            settings=given,
            needs=lambda task: _needs(task, processes),
            stop_s=stop_s,
            offers=offers,
            shared=shared,
        )

    def submit(self, task: JobTask) -> None:
        self._pool.submit(task)

    def results(self) -> Iterator[tuple[JobTask, Any]]:
        return self._pool.results()

    def __enter__(self) -> RayExecutor:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._pool.close(now=error is not None)


@dataclass(frozen=True)
class _Together:
    """How many processes do a task, and the threads of each."""

    processes: int
    threads: int


def _needs(task: JobTask, processes: int) -> dict[str, float]:
    return {name: amount * processes if name == "GPU" else amount for name, amount in task.needs.items()}


def _run(how: _Together, task: JobTask) -> Any:
    with patient(_LOCK_S):
        if how.processes == 1:
            return task.run()
        return run_together(task, how.processes, threads=how.threads)


def _died(task: JobTask) -> CompressorError:
    return CompressorError(
        f"The process of {task.name} was lost again and again; {WHY_LOST}. What had ended is kept: run the same "
        "command to go on."
    )
