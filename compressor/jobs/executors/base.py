"""What runs jobs: tasks as data in, results as data out."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Protocol

from compressor.plugins.importing import import_attribute


@dataclass(frozen=True)
class JobTask:
    """A job as data, so that it can be handed to another process or machine.

    Attributes:
        name: tells it from the others, in messages, too.
        function: what does it, as ``package.module:name``; it returns JSON values.
        arguments: its keyword arguments, JSON values.
        needs: what it takes where machines have it by amounts: ``{"GPU": 1}``, or a device by its name.
    """

    name: str
    function: str
    arguments: Mapping[str, Any] = field(default_factory=dict)
    needs: Mapping[str, float] = field(default_factory=dict)

    def run(self) -> Any:
        """Do it here and now."""
        function: Any = import_attribute(self.function, "job")
        return function(**self.arguments)


class Executor(Protocol):
    """Runs tasks that do not depend on each other. What depends on a result is submitted when that is there.

    Leaving the ``with`` block with an error, or Ctrl-C, stops what is running. What a job had stored stays, so the
    same jobs run again go on from there.
    """

    def submit(self, task: JobTask) -> None:
        """Hand in a task; also while results are taken."""
        ...

    def results(self) -> Iterator[tuple[JobTask, Any]]:
        """Each task with what it returned, as they end, until none is left. Raises what a task raised."""
        ...

    def __enter__(self) -> Executor: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None: ...
