"""What a child tells of the program's events, those of a sweep's points among them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from compressor.jobs.executors.base import JobTask
from compressor.jobs.executors.serial import SerialExecutor
from compressor.jobs.sweeps.run import told_point
from compressor.pipeline.events import Event, Events, JobBegan, JobEnded, Step, is_sample
from compressor.storage.codec import encode

Tell = Callable[[Mapping[str, Any]], None]
_OF_JOBS = (JobBegan.__name__, JobEnded.__name__)


class Told:
    """A listener that tells the worker, of training steps about a thousand.

    Args:
        point: of a sweep, whose name goes with its events and stands before its stages; the job is the sweep, so that
            where a point begins and ends is no news of the job.
    """

    steps = True

    def __init__(self, tell: Tell, point: str | None = None) -> None:
        self._tell, self._point = tell, point

    def __call__(self, event: Event) -> None:
        if isinstance(event, Step) and not is_sample(event):
            return
        tell_of(self._tell, self._point, encode(event.to_json()))


def tell_of(tell: Tell, point: str | None, document: dict[str, Any]) -> None:
    """Tell an event of the job, or of a point of it."""
    if point is not None:
        if document.get("event") in _OF_JOBS:
            return
        document["point"] = point
        if "stage" in document:
            document["stage"] = f"{point} {document['stage']}"
    tell(document)


class ToldExecutor(SerialExecutor):
    """Runs the points of a sweep one after the other in this process, and tells what happens in them."""

    def __init__(self, tell: Tell) -> None:
        super().__init__()
        self._tell = tell

    def results(self) -> Iterator[tuple[JobTask, Any]]:
        while self._waiting:
            task = self._waiting.popleft()
            told = task.arguments  # of ``jobs.sweeps.run.run_point``
            events = Events(Told(self._tell, task.name))
            yield task, told_point(told["config"], told["trained"], told["searches"], events)
