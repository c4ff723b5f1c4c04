"""A job's events become what its page shows, also where they come twice, late, or from somebody hostile."""

from __future__ import annotations

import random
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from compressor.service.page.story.curves import MOST_POINTS, Curve
from compressor.service.page.story.shelf import Shelf
from compressor.service.page.story.story import MOST_LINES, Story
from compressor.service.records import EventRecord

START = datetime(2026, 11, 30, 7, 0, tzinfo=UTC)


def told(*events: tuple[str, dict[str, Any]], attempt: int = 1, story: Story | None = None) -> Story:
    story = Story() if story is None else story
    for number, (kind, body) in enumerate(events, story.last + 1):
        story.take(number, attempt, START + timedelta(seconds=number), kind, body)
    return story


def steps(stage: str, first: int, last: int, total: int) -> list[tuple[str, dict[str, Any]]]:
    return [
        ("Step", {"stage": stage, "done": done, "total": total, "values": {"loss": 1 / done, "lr": 0.1}})
        for done in range(first, last + 1)
    ]


def test_stages_and_curves() -> None:
    story = told(
        ("JobBegan", {"name": "a job", "configuration": {}}),
        ("StageBegan", {"stage": "load"}),
        ("StageEnded", {"stage": "load", "seconds": 0.5}),
        ("StageBegan", {"stage": "search"}),
        ("TrainingBegan", {"stage": "search", "done": 0, "total": 4}),
        *steps("search", 1, 3, 4),
    )
    assert [(stage.name, stage.state, stage.seconds) for stage in story.stages] == [
        ("load", "done", 0.5),
        ("search", "running", None),
    ]
    assert story.stage is not None
    assert (story.stage.done, story.stage.total, story.stage.share) == (3, 4, 0.75)
    assert story.curves["search/loss"].values == [1.0, 1 / 2, 1 / 3]
    assert story.curves["search/lr"].steps == [1, 2, 3]


def test_a_stage_of_the_same_name_is_another_one() -> None:
    pair = [("StageBegan", {"stage": "evaluate"}), ("StageEnded", {"stage": "evaluate", "seconds": 1.0})]
    assert [stage.seconds for stage in told(*pair, *pair).stages] == [1.0, 1.0]


def test_another_attempt_goes_on_with_the_stages_of_the_last() -> None:
    begun = [
        ("StageBegan", {"stage": "load"}),
        ("StageEnded", {"stage": "load", "seconds": 1.0}),
        ("StageBegan", {"stage": "search"}),
        ("TrainingBegan", {"stage": "search", "done": 0, "total": 9}),
    ]
    story = told(*begun, *steps("search", 1, 6, 9))
    told(("state", {"state": "running", "worker": "w2", "attempt": 2}), attempt=2, story=story)
    assert story.stages[1].state == "cut off"
    told(*begun[:3], ("TrainingBegan", {"stage": "search", "done": 4, "total": 9}), attempt=2, story=story)
    assert [stage.name for stage in story.stages] == ["load", "search"], "no stage is shown twice"
    assert story.stages[0].seconds == 2.0
    assert story.curves["search/loss"].steps == [1, 2, 3, 4], "steps that are done again are drawn once"
    told(*steps("search", 5, 9, 9), attempt=2, story=story)
    assert story.curves["search/loss"].steps == list(range(1, 10))


def test_points_of_a_sweep_are_told_apart() -> None:
    job = [("StageBegan", {"stage": "load"}), ("StageEnded", {"stage": "load", "seconds": 1.0})]
    story = told(
        ("JobBegan", {"name": "sweep", "folder": "/job/out"}),
        ("JobBegan", {"name": "p1", "folder": "/job/out/flops-50pct"}),
        *job,
        ("JobBegan", {"name": "p2", "folder": "/job/out/flops-25pct"}),
        *job,
    )
    assert [stage.part for stage in story.stages] == ["flops-50pct", "flops-25pct"]


def test_metrics_decision_trials_and_what_was_said() -> None:
    story = told(
        ("Metric", {"of": "before", "name": "top-1 accuracy", "value": 0.9, "split": "test", "samples": 10}),
        ("Metric", {"of": "before", "name": "top-1 accuracy", "value": 0.91, "split": "test", "samples": 10}),
        ("Decision", {"costs": {"flops": 5e6}, "units": 3, "all_units": 6, "blocks": 1, "all_blocks": 2}),
        ("TrialEnded", {"number": 1, "count": 2, "settings": {"lr": 0.1}, "score": 0.5, "lost": None}),
        ("Warned", {"text": "careful"}),
        ("Warned", {"text": "careful"}),
        *[("Message", {"text": f"line {n}"}) for n in range(MOST_LINES + 5)],
    )
    assert [(each.of, each.value) for each in story.metrics] == [("before", 0.91)]
    assert story.decision is not None
    assert story.decision["costs"] == {"flops": 5e6}
    assert [(trial.number, trial.settings, trial.score) for trial in story.trials] == [(1, "lr 0.1", 0.5)]
    assert story.warnings == ["careful"]
    assert len(story.lines) == MOST_LINES
    assert story.lines[-1].text == f"line {MOST_LINES + 4}"


@pytest.mark.parametrize("seed", range(20))
def test_no_event_of_any_shape_breaks_a_story(seed: int) -> None:
    rng = random.Random(seed)
    kinds = ["JobBegan", "StageBegan", "StageEnded", "TrainingBegan", "Step", "Metric", "TrialEnded", "Decision"]
    kinds += ["Message", "Warned", "begin_anew", "end", "__init__", "", "Step\0", "FileWritten"]
    values: list[Any] = [None, "x", "<b>", 3, -1, float("nan"), [], {}, {"loss": "no"}, True, "1e999", 10**400]
    keys = ["stage", "done", "total", "values", "of", "name", "value", "seconds", "text", "number", "costs", "units"]
    for number in range(1, 200):
        story = Story()
        body = {rng.choice(keys): rng.choice(values) for _ in range(rng.randrange(6))}
        story.take(number, rng.randrange(3), START, rng.choice(kinds), body)
        assert story.last == number


@pytest.mark.parametrize("count", [1, 10, MOST_POINTS, MOST_POINTS + 1, 10_000])
def test_a_curve_is_bounded_and_keeps_its_shape(count: int) -> None:
    curve = Curve("search", "loss")
    for step in range(1, count + 1):
        curve.add(step, float(step))
    assert len(curve.steps) <= MOST_POINTS
    assert curve.steps == sorted(set(curve.steps))
    assert curve.values == curve.steps
    assert curve.steps[0] == 1
    assert curve.steps[-1] > count - curve.every - 1


def test_a_curve_has_no_point_where_there_is_no_number() -> None:
    curve = Curve("search", "loss")
    for step, value in enumerate([1.0, float("nan"), float("inf"), 2.0], 1):
        curve.add(step, value)
    assert curve.values == [1.0, 2.0]


class Log:
    """Events in memory; counts how many were read."""

    def __init__(self, count: int) -> None:
        self.events = [EventRecord(n, "job", 1, n, START, "Message", {"text": str(n)}) for n in range(1, count + 1)]
        self.read = 0

    def after(self, job_id: str, last: int = 0, limit: int = 500) -> list[EventRecord]:
        found = [event for event in self.events if event.id > last][:limit]
        self.read += len(found)
        return found


def test_a_look_reads_only_what_is_new() -> None:
    shelf, log = Shelf(), Log(2500)
    assert shelf.look(log, "job", lambda story: story.last) == 2500
    assert shelf.look(log, "job", lambda story: story.last) == 2500
    assert log.read == 2500


def test_the_shelf_is_bounded() -> None:
    shelf, log = Shelf(most=2), Log(1)
    for job in ("a", "b", "c", "a"):
        assert shelf.look(log, job, lambda story: story.last) == 1
    assert log.read == 4, "the story of a was dropped and told again"
