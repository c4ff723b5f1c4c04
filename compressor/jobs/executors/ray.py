"""Jobs as tasks of Ray, on the machines of a cluster or on this one."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

from compressor.errors import CompressorError
from compressor.jobs.executors.base import JobTask
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
        offers: Mapping[str, float] | None = None,
        shared: Path | None = None,
    ) -> None:
        self._settings = settings or RaySettings()
        self._pool: RayPool[JobTask, Any] = RayPool(
            _run,
            None,
            workers,
            died=_died,
            settings=self._settings,
            needs=lambda task: task.needs,
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


def _run(payload: None, task: JobTask) -> Any:
    with patient(_LOCK_S):
        return task.run()


def _died(task: JobTask) -> CompressorError:
    return CompressorError(
        f"The process of {task.name} was lost again and again; {WHY_LOST}. What had ended is kept: run the same "
        "command to go on."
    )
