"""Jobs side by side, each in a process of this machine with its share of the threads."""

from __future__ import annotations

from collections.abc import Iterator
from types import TracebackType
from typing import Any

from compressor.errors import CompressorError
from compressor.jobs.executors.base import JobTask
from compressor.process.pool import WHY_DEAD, Pool


class ProcessExecutor:
    """Up to ``workers`` processes, which end with this one, however it ends."""

    def __init__(self, workers: int) -> None:
        self._pool: Pool[JobTask, Any] = Pool(_run, None, workers, died=_died)

    def submit(self, task: JobTask) -> None:
        self._pool.submit(task)

    def results(self) -> Iterator[tuple[JobTask, Any]]:
        return self._pool.results()

    def __enter__(self) -> ProcessExecutor:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._pool.close(now=error is not None)


def _run(payload: None, task: JobTask) -> Any:
    return task.run()


def _died(task: JobTask) -> CompressorError:
    return CompressorError(
        f"The process of {task.name} died; {WHY_DEAD}. What had ended is kept: run again, with fewer workers "
        "(--workers)."
    )
