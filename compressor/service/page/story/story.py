"""A job's events, folded into what its page shows. Events are of ``pipeline.events``, as JSON values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from compressor.service.page.story.curves import Curve

MOST_LINES = 200
"""Messages, trials and networks that are kept, the newest."""
MOST_CURVES = 24
MOST_STAGES = 1000


@dataclass
class Stage:
    """A stage of a job. ``part`` is the point of a sweep that it belongs to, empty for the job itself.

    ``state`` is "running", "done" or "cut off"; ``done`` of ``total`` are training steps.
    """

    part: str
    name: str
    state: str = "running"
    seconds: float | None = None
    done: int = 0
    total: int = 0

    @property
    def share(self) -> float | None:
        """How much of it is done, None where it counts no steps."""
        return min(1.0, self.done / self.total) if self.total > 0 else None


@dataclass
class Measured:
    """A network that was evaluated; ``of`` says which, such as "before"."""

    of: str
    name: str
    value: float | None
    split: str
    samples: int | None


@dataclass
class Tried:
    """A trial of the tuning: ``settings`` as one reads them; ``lost`` says why there is no score."""

    number: int
    settings: str
    score: float | None
    lost: str | None


@dataclass
class Line:
    """Something that was said; ``tone`` is "note" or "warning"."""

    time: datetime
    text: str
    tone: str = "note"


@dataclass
class Story:
    """What happened so far. ``last`` is the id of the last event that was taken in."""

    last: int = 0
    attempt: int = 0
    stages: list[Stage] = field(default_factory=list)
    curves: dict[str, Curve] = field(default_factory=dict)
    metrics: list[Measured] = field(default_factory=list)
    trials: list[Tried] = field(default_factory=list)
    decision: dict[str, Any] | None = None
    warnings: list[str] = field(default_factory=list)
    lines: list[Line] = field(default_factory=list)
    _part: str = ""
    _jobs: int = 0
    _count: dict[tuple[str, str], int] = field(default_factory=dict)
    _known: dict[tuple[str, str, int], Stage] = field(default_factory=dict)

    def take(self, number: int, attempt: int, time: datetime, kind: str, body: Mapping[str, Any]) -> None:
        """Take in one event. Those of another make, and those that do not hold together, say nothing."""
        self.last = max(self.last, number)
        if attempt != self.attempt:
            self._begin_anew(attempt)
        taker = getattr(self, f"_on_{_snake(kind)}", None)
        if taker is None:
            return
        try:
            taker(time, body)
        except (KeyError, TypeError, ValueError, AttributeError, OverflowError):
            return

    @property
    def stage(self) -> Stage | None:
        """The innermost that is running."""
        return next((stage for stage in reversed(self.stages) if stage.state == "running"), None)

    def _begin_anew(self, attempt: int) -> None:
        """Another attempt goes on where the last one was cut off."""
        for stage in self.stages:
            if stage.state == "running":
                stage.state = "cut off"
        self.attempt, self._part, self._jobs = attempt, "", 0
        self._count.clear()

    def _on_job_began(self, time: datetime, body: Mapping[str, Any]) -> None:
        self._jobs += 1
        folder = str(body.get("folder") or "").rstrip("/")
        self._part = (folder.rpartition("/")[2] or str(body.get("name", ""))) if self._jobs > 1 else ""
        if self._jobs > 1:  # a point of a sweep has curves and networks of its own
            self.curves.clear()
            self.metrics.clear()
            self.decision = None

    def _on_stage_began(self, time: datetime, body: Mapping[str, Any]) -> None:
        name = str(body["stage"])
        number = self._count[self._part, name] = self._count.get((self._part, name), 0) + 1
        known = self._known.get((self._part, name, number))
        if known is None:
            if len(self.stages) >= MOST_STAGES:
                return
            known = self._known[self._part, name, number] = Stage(self._part, name)
            self.stages.append(known)
        known.state = "running"

    def _on_stage_ended(self, time: datetime, body: Mapping[str, Any]) -> None:
        name, seconds = str(body["stage"]), float(body["seconds"])
        for stage in reversed(self.stages):
            if stage.name == name and stage.part == self._part and stage.state == "running":
                stage.state, stage.seconds = "done", (stage.seconds or 0.0) + seconds
                return

    def _on_training_began(self, time: datetime, body: Mapping[str, Any]) -> None:
        done, total = int(body["done"]), int(body["total"])
        self._progress(str(body["stage"]), done, total)
        for curve in self.curves.values():
            if curve.stage == body["stage"]:
                curve.cut(done)

    def _on_step(self, time: datetime, body: Mapping[str, Any]) -> None:
        name, done = str(body["stage"]), int(body["done"])
        self._progress(name, done, int(body["total"]))
        for quantity, value in dict(body.get("values") or {}).items():
            if not isinstance(value, (int, float)) or isinstance(value, bool):
                continue
            curve = Curve(name, str(quantity))
            if curve.key in self.curves or len(self.curves) < MOST_CURVES:
                self.curves.setdefault(curve.key, curve).add(done, float(value))

    def _progress(self, name: str, done: int, total: int) -> None:
        running = [stage for stage in self.stages if stage.state == "running"]
        named = [stage for stage in running if stage.name == name]
        for stage in (named or running)[-1:]:
            stage.done, stage.total = done, total

    def _on_metric(self, time: datetime, body: Mapping[str, Any]) -> None:
        value, samples = body.get("value"), body.get("samples")
        found = Measured(
            str(body["of"]),
            str(body["name"]),
            None if value is None else float(value),
            str(body.get("split", "")),
            None if samples is None else int(samples),
        )
        self.metrics = [each for each in self.metrics if (each.of, each.split) != (found.of, found.split)][-MOST_LINES:]
        self.metrics.append(found)

    def _on_trial_ended(self, time: datetime, body: Mapping[str, Any]) -> None:
        number, score, lost = int(body["number"]), body.get("score"), body.get("lost")
        settings = ", ".join(
            f"{name} {value:.4g}" if isinstance(value, float) else f"{name} {value}"
            for name, value in dict(body.get("settings") or {}).items()
            if value is not None
        )
        found = Tried(number, settings, None if score is None else float(score), None if lost is None else str(lost))
        self.trials = [each for each in self.trials if each.number != number][-MOST_LINES:]
        self.trials.append(found)

    def _on_decision(self, time: datetime, body: Mapping[str, Any]) -> None:
        costs = {str(name): float(value) for name, value in dict(body["costs"]).items()}
        counts = {name: int(body[name]) for name in ("units", "all_units", "blocks", "all_blocks")}
        self.decision = {"costs": costs, **counts}

    def _on_message(self, time: datetime, body: Mapping[str, Any]) -> None:
        self._say(Line(time, str(body["text"])))

    def _on_warned(self, time: datetime, body: Mapping[str, Any]) -> None:
        text = str(body["text"])
        if text not in self.warnings:
            self.warnings.append(text)
        self._say(Line(time, text, "warning"))

    def _say(self, line: Line) -> None:
        self.lines.append(line)
        del self.lines[:-MOST_LINES]


def _snake(kind: str) -> str:
    """``StageBegan`` as ``stage_began``."""
    return "".join(f"_{sign.lower()}" if sign.isupper() else sign for sign in kind).lstrip("_")
