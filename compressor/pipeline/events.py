"""What happens in a job, as typed events: whoever wants to know listens.

Nothing in the program prints while it works. A console, the history in the report, trackers and services are listeners:
functions of one event. They are called in the thread of the job, in the order in which they were added, and must return
quickly.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from typing import Any

from compressor.errors import UsageError


@dataclass(frozen=True)
class Event:
    """Base of all events."""

    def to_json(self) -> dict[str, Any]:
        """The event as JSON values, its kind under ``"event"``."""
        return {"event": type(self).__name__, **asdict(self)}


@dataclass(frozen=True)
class JobBegan(Event):
    """A job begins, or goes on: ``configuration`` is what it is told, as JSON values. ``run`` is the same when it goes
    on after it was cut off; ``folder`` is what it writes to, if it does."""

    name: str
    configuration: Mapping[str, Any] = field(default_factory=dict)
    run: str = ""
    folder: str | None = None


@dataclass(frozen=True)
class JobEnded(Event):
    """A job is ``"done"``, ``"failed"`` or ``"interrupted"``; where it failed, ``error`` says why."""

    status: str
    error: str | None = None


@dataclass(frozen=True)
class StageBegan(Event):
    """A stage begins, such as ``"search"``."""

    stage: str


@dataclass(frozen=True)
class StageEnded(Event):
    """A stage is done; stages that fail have no end."""

    stage: str
    seconds: float


@dataclass(frozen=True)
class TrainingBegan(Event):
    """Training begins, or goes on after ``done`` of ``total`` steps."""

    stage: str
    done: int
    total: int


@dataclass(frozen=True)
class Step(Event):
    """A training step is done; ``values`` has numbers such as the loss."""

    stage: str
    done: int
    total: int
    values: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class TrainingEnded(Event):
    """Training ended, well or not."""

    stage: str


@dataclass(frozen=True)
class Metric(Event):
    """A network was evaluated: ``name`` says on what scale, ``of`` which network (``"before"``, ``"after-search"``)."""

    of: str
    name: str
    value: float | None
    split: str = "test"
    samples: int | None = None


@dataclass(frozen=True)
class TrialEnded(Event):
    """A trial of the tuning is done: trial ``number`` of ``count`` with ``settings`` (``lr``, ``weight_decay``,
    ``momentum``, ``dropout``) has ``score`` on the scale ``metric``, or is ``lost`` for a reason. Trials side by side
    end in any order. ``stored``: it was done before the job was cut off."""

    number: int
    count: int
    settings: Mapping[str, float | None]
    metric: str
    score: float | None
    seconds: float
    lost: str | None = None
    stored: bool = False


@dataclass(frozen=True)
class Decision(Event):
    """It is decided what is kept: costs of the result by name, and how many units and blocks stay."""

    costs: Mapping[str, float]
    units: int
    all_units: int
    blocks: int
    all_blocks: int


@dataclass(frozen=True)
class FileWritten(Event):
    """A file of the result is there."""

    path: str
    kind: str
    bytes: int


@dataclass(frozen=True)
class Message(Event):
    """Something worth knowing, in a line."""

    text: str


@dataclass(frozen=True)
class Warned(Event):
    """Something that must not be missed; each text comes once."""

    text: str


Listener = Callable[[Event], None]


def require_listeners(given: object) -> list[Listener]:
    """The functions that are to be told. Raises ``UsageError`` unless it is a list of such."""
    if not isinstance(given, Iterable) or isinstance(given, (str, Mapping)):
        raise UsageError(f"listeners must be a list of functions of one event, not {given!r}.")
    found = list(given)
    for listener in found:
        if not callable(listener):
            raise UsageError(
                f"listeners holds {listener!r}, which is no function of one event; trackers come as "
                "compressor.TrackerListener(name)."
            )
    return found


class ListenerLostError(Exception):
    """What a listener raises that can hear no more, with a line on why: it is told nothing further, and the job goes
    on with a warning. Any other error of a listener ends the job."""


class Events:
    """Emits the events of one job, and keeps what its report says of them.

    Attributes:
        warnings: every warning so far.
        stage_seconds: how long each finished stage took, in the order they ended; stages of the same name add up.
    """

    def __init__(self, *listeners: Listener) -> None:
        self.listeners = list(listeners)
        self.warnings: list[str] = []
        self.stage_seconds: dict[str, float] = {}

    def emit(self, event: Event) -> None:
        """Tell every listener."""
        for listener in list(self.listeners):
            try:
                listener(event)
            except ListenerLostError as lost:
                self.listeners.remove(listener)
                self.warn(str(lost))

    def info(self, text: str) -> None:
        """Say something worth knowing."""
        self.emit(Message(text))

    def warn(self, text: str) -> None:
        """Say something that must not be missed, once."""
        if text not in self.warnings:
            self.warnings.append(text)
            self.emit(Warned(text))

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Announce a stage and time it."""
        self.emit(StageBegan(name))
        started = time.perf_counter()
        yield
        seconds = time.perf_counter() - started
        self.stage_seconds[name] = self.stage_seconds.get(name, 0.0) + seconds
        self.emit(StageEnded(name, seconds))

    @contextmanager
    def job(self, began: JobBegan, *listeners: Listener) -> Iterator[None]:
        """Announce a job and how it ends. ``listeners`` are told, beside the others, for as long as it goes on."""
        self.listeners += listeners
        try:
            self.emit(began)
            yield
        except BaseException as error:
            stopped = isinstance(error, (KeyboardInterrupt, SystemExit, GeneratorExit))
            said = None if stopped else f"{type(error).__name__}: {error}"
            self.emit(JobEnded("interrupted" if stopped else "failed", said))
            raise
        else:
            self.emit(JobEnded("done"))
        finally:
            self.listeners = [each for each in self.listeners if each not in listeners]

    def tenths(self) -> Callable[[str, int, int], None]:
        """Progress of what is counted, ``(what, done, total)``: a line per tenth."""
        shown: dict[str, int] = {}

        def tell(what: str, done: int, total: int) -> None:
            tenth = 10 * done // max(total, 1)
            if tenth > shown.get(what, 0):
                shown[what] = tenth
                self.info(f"  {what}: {done} of {total}")

        return tell

    def progress(self, stage: str) -> StepEvents | None:
        """What a training loop reports its steps to; None if nobody listens to steps (``steps`` of a listener)."""
        wanted = any(getattr(listener, "steps", True) for listener in self.listeners)
        return StepEvents(self, stage) if wanted else None


class StepEvents:
    """A training loop's progress (``process.progress.Progress``) as events."""

    def __init__(self, events: Events, stage: str) -> None:
        self._events, self._stage, self._total = events, stage, 0

    def start(self, total_steps: int, done_steps: int) -> None:
        self._total = total_steps
        self._events.emit(TrainingBegan(self._stage, done_steps, total_steps))

    def advance(self, done_steps: int, **shown: float) -> None:
        self._events.emit(Step(self._stage, done_steps, self._total, shown))

    def close(self) -> None:
        self._events.emit(TrainingEnded(self._stage))


MOST_STEPS = 1000


def is_sample(step: Step) -> bool:
    """Whether a step is among the thousand or so of a training that are kept where all of them would be too many: the
    same ones whenever it is run, and the last."""
    return step.done == step.total or step.done % max(1, -(-step.total // MOST_STEPS)) == 0
