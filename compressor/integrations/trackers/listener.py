"""Trackers as listeners of a job's events, in a thread of their own."""

from __future__ import annotations

import queue
import secrets
import threading
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from compressor.errors import MissingDependencyError
from compressor.integrations.trackers import TRACKERS
from compressor.integrations.trackers.base import Run, Tracker
from compressor.options import Number, Place, Text, read
from compressor.pipeline.events import (
    Decision,
    Event,
    JobBegan,
    JobEnded,
    ListenerLostError,
    Metric,
    StageEnded,
    Step,
    TrialEnded,
    is_sample,
)

_MOST_WAITING = 10_000  # numbers that a tracker has not taken yet
_Call = Callable[[Tracker], None]


class TrackerListener:
    """Tells a tracker what happens in a job, from ``JobBegan`` to ``JobEnded``.

    The tracker works in a thread of its own, so that a slow one slows nothing down. One that raises, or does not take
    what is told, is dropped: that is a ``ListenerLostError``, which ends no job.

    Args:
        name: of the tracker, in ``TRACKERS``.
        run_name, folder: what the run is called and where its files go, if not as the job has it.
        patience_s: how long to wait, when the job ends, until the tracker has taken everything.

    Raises:
        UsageError: there is no such tracker, or another argument is none.
        MissingDependencyError: its package is not installed.
    """

    steps = True

    def __init__(
        self,
        name: str,
        *,
        run_name: str | None = None,
        folder: str | Path | None = None,
        patience_s: float = 60.0,
    ) -> None:
        require_trackers([read("name", Text(), name)])
        self.name = name
        self._make = TRACKERS.get(name)
        self._run_name = read("run_name", Text(), run_name, optional=True)
        self._folder = read("folder", Place(), folder, optional=True)
        self._patience_s = read("patience_s", Number(least=0), patience_s)
        self._thread: _Thread | None = None

    def __call__(self, event: Event) -> None:
        if isinstance(event, JobBegan):
            folder = self._folder or event.folder
            name, id_ = self._run_name or event.name, event.run or secrets.token_hex(6)
            run = Run(name, id_, None if folder is None else Path(folder))
            self._thread = _Thread(self.name, lambda: self._make(run))
            self._thread.tell(lambda tracker: tracker.store_configuration(event.configuration))
        if self._thread is None:
            return
        if isinstance(event, JobEnded):
            thread, self._thread = self._thread, None
            thread.end(event.status, self._patience_s if event.status != "interrupted" else self._patience_s / 10)
        elif (numbers := numbers_of(event)) is not None:
            values, step = numbers
            self._thread.tell(lambda tracker: tracker.log(values, step))


class _Thread:
    """Makes a tracker and calls it, one call after the other. It dies with the process, whatever it waits for."""

    def __init__(self, name: str, make: Callable[[], Tracker]) -> None:
        self._name, self._make = name, make
        self._calls: queue.Queue[_Call | None] = queue.Queue(_MOST_WAITING)
        self._lost: str | None = None
        self._thread = threading.Thread(target=self._work, name=f"tracker {name}", daemon=True)
        self._thread.start()

    def tell(self, call: _Call | None) -> None:
        """Have it called. Raises ``ListenerLostError`` if the tracker is lost."""
        self._require()
        try:
            self._calls.put_nowait(call)
        except queue.Full:
            self._lost = f"it has not taken {_MOST_WAITING} numbers"
            self._require()

    def end(self, status: str, patience_s: float) -> None:
        """Have it finished, and wait until it has. Raises ``ListenerLostError`` if it is lost, or takes too long."""
        self.tell(lambda tracker: tracker.finish(status))
        self.tell(None)
        self._thread.join(patience_s)
        if self._thread.is_alive():
            self._lost = f"it has not finished within {patience_s:g} s"
        self._require()

    def _require(self) -> None:
        if self._lost is not None:
            raise ListenerLostError(f"The tracker {self._name} is dropped ({self._lost}); the job goes on without it.")

    def _work(self) -> None:
        try:
            tracker = self._make()
            while self._lost is None and (call := self._calls.get()) is not None:
                call(tracker)
        except BaseException as error:  # whatever the tracker's package raises
            said = " ".join(str(error).split())
            self._lost = f"{type(error).__name__}: {said[:200]}"


def numbers_of(event: Event) -> tuple[dict[str, float], int] | None:
    """What a tracker logs of an event, by name and with its step; None where there are no numbers."""
    values: dict[str, Any]
    if isinstance(event, Step):
        values = {f"{event.stage}/{name}": value for name, value in event.values.items()} if is_sample(event) else {}
        step = event.done
    elif isinstance(event, Metric):
        values, step = {f"{event.name}/{event.of}": event.value}, 0
    elif isinstance(event, Decision):
        values, step = {f"result/{name}": cost for name, cost in event.costs.items()}, 0
        values |= {"result/units": event.units / max(1, event.all_units)}
        values |= {"result/blocks": event.blocks / event.all_blocks} if event.all_blocks else {}
    elif isinstance(event, TrialEnded):
        values = {f"tune/{name}": value for name, value in {**event.settings, event.metric: event.score}.items()}
        step = event.number
    elif isinstance(event, StageEnded):
        values, step = {f"seconds/{event.stage}": event.seconds}, 0
    else:
        return None
    known = {name: float(value) for name, value in values.items() if value is not None}
    return (known, step) if known else None


def require_trackers(names: Iterable[str]) -> None:
    """Raise ``UsageError`` for one that there is not, ``MissingDependencyError`` for one that is not installed."""
    for name in names:
        why = TRACKERS.get(name).missing()
        if why is not None:
            raise MissingDependencyError(f"The tracker {name} cannot be used: {why}")
