"""Events that come from a service are those that a job here would have told."""

from __future__ import annotations

import io
import json
from typing import Any

import pytest

from compressor.pipeline import events as told
from compressor.pipeline.console import Console
from compressor.pipeline.events import Event
from compressor.service.client.told import Teller, event_of

ALL: list[Event] = [
    told.JobBegan("small", {"model": "m"}, "r1", "out"),
    told.StageBegan("search"),
    told.Message("something"),
    told.TrainingBegan("search", 0, 3),
    told.Step("search", 1, 3, {"loss": 1.5}),
    told.TrainingEnded("search"),
    told.StageEnded("search", 2.5),
    told.TrialEnded(1, 2, {"lr": 0.1, "dropout": None}, "top-1 accuracy", None, 2.0, "it diverged"),
    told.Metric("before", "top-1 accuracy", None, "val", 3),
    told.Decision({"flops": 3.0}, 1, 2, 3, 4),
    told.FileWritten("model.onnx", "onnx", 12),
    told.Warned("careful"),
    told.JobEnded("failed", "why"),
]


@pytest.mark.parametrize("event", ALL, ids=lambda event: type(event).__name__)
def test_an_event_comes_back_as_it_was(event: Event) -> None:
    body = json.loads(json.dumps(event.to_json())) | {"time": "2026-01-01T00:00:00Z", "attempt": 1}
    assert event_of(type(event).__name__, body) == event


@pytest.mark.parametrize(
    ("kind", "body"),
    [
        ("end", {"state": "done"}),
        ("Event", {}),
        ("StageBegan", {}),
        ("StageBegan", {"stage": 3}),
        ("Step", {"stage": "s", "done": "1", "total": 2}),
        ("Step", {"stage": "s", "done": 1, "total": 2, "values": [1]}),
        ("__class__", {}),
    ],
)
def test_what_is_no_event_is_none(kind: str, body: dict[str, Any]) -> None:
    assert event_of(kind, body) is None


def test_the_console_says_what_it_says_of_a_job_here() -> None:
    here, there = io.StringIO(), io.StringIO()
    console, teller = Console(here), Teller(Console(there))
    for event in ALL:
        console(event)
        teller.tell(type(event).__name__, json.loads(json.dumps(event.to_json())))
    assert here.getvalue() == there.getvalue() != ""


def test_training_that_its_worker_did_not_end_ends() -> None:
    seen: list[Event] = []
    teller = Teller(seen.append)
    teller.tell("TrainingBegan", {"stage": "a", "done": 0, "total": 9})
    teller.tell("Step", {"stage": "a", "done": 1, "total": 9, "values": {"loss": None, "done_steps": 3, "lr": 1}})
    teller.tell("JobBegan", {"name": "again"})
    teller.tell("TrainingBegan", {"stage": "a", "done": 1, "total": 9})
    teller.close()
    assert [type(event).__name__ for event in seen] == [
        *("TrainingBegan", "Step", "TrainingEnded", "JobBegan", "TrainingBegan", "TrainingEnded")
    ]
    step = seen[1]
    assert isinstance(step, told.Step)
    assert step.values == {"lr": 1.0}
