"""Jobs one after the other, in this process."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from types import TracebackType
from typing import Any

from compressor.jobs.executors.base import JobTask


class SerialExecutor:
    """Runs a task when its result is asked for, in the order in which they were submitted."""

    def __init__(self) -> None:
        self._waiting: deque[JobTask] = deque()

    def submit(self, task: JobTask) -> None:
        self._waiting.append(task)

    def results(self) -> Iterator[tuple[JobTask, Any]]:
        while self._waiting:
            task = self._waiting.popleft()
            yield task, task.run()

    def __enter__(self) -> SerialExecutor:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._waiting.clear()
