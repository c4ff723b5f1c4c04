"""Events of a job, and the console that listens to them: where lines go, what quiet leaves, the times of stages."""

from __future__ import annotations

import io
import json

import pytest

from compressor.pipeline.console import Console
from compressor.pipeline.events import (
    Event,
    Events,
    StageBegan,
    StageEnded,
    Step,
    TrainingBegan,
    TrainingEnded,
    TrialEnded,
    Warned,
)


def test_stages_are_announced_and_timed() -> None:
    stream = io.StringIO()
    events = Events(Console(stream))
    with events.stage("Search"):
        pass
    with events.stage("Search"):
        pass
    assert list(events.stage_seconds) == ["Search"]
    assert stream.getvalue().startswith("Search ...\nSearch: ")


def test_a_stage_that_fails_is_not_counted() -> None:
    events = Events(Console(io.StringIO()))
    with pytest.raises(ValueError, match="x"), events.stage("Trim"):
        raise ValueError("x")
    assert events.stage_seconds == {}


def test_quiet_keeps_warnings_and_each_is_said_once() -> None:
    stream = io.StringIO()
    events = Events(Console(stream, quiet=True))
    events.info("hidden")
    events.warn("random weights")
    events.warn("random weights")
    assert events.progress("train") is None
    assert stream.getvalue() == "Warning: random weights\n"
    assert events.warnings == ["random weights"]


def test_stderr_unless_told_otherwise(capsys: pytest.CaptureFixture[str]) -> None:
    Events(Console()).info("hello")
    captured = capsys.readouterr()
    assert (captured.out, captured.err) == ("", "hello\n")


def test_training_is_lines_in_a_log() -> None:
    stream = io.StringIO()
    progress = Events(Console(stream)).progress("finetune")
    assert progress is not None
    progress.start(3, 1)
    progress.advance(3, loss=0.25)
    progress.close()
    assert stream.getvalue().startswith("finetune: 3 steps, going on after step 1\nfinetune: step 3/3, loss 0.25")


def test_every_listener_hears_everything_in_order_and_events_are_json() -> None:
    heard: list[Event] = []
    events = Events(heard.append, lambda event: heard.append(event))
    with events.stage("search"):
        progress = events.progress("search")
        assert progress is not None
        progress.start(2, 0)
        progress.advance(1, loss=1.5)
        progress.close()
        events.warn("careful")
    kinds = [StageBegan, TrainingBegan, Step, TrainingEnded, Warned, StageEnded]
    assert [type(event) for event in heard[::2]] == kinds
    assert heard[::2] == heard[1::2]
    documents = [json.loads(json.dumps(event.to_json())) for event in heard[::2]]
    assert documents[2] == {"event": "Step", "stage": "search", "done": 1, "total": 2, "values": {"loss": 1.5}}


def test_a_trial_is_a_line() -> None:
    stream = io.StringIO()
    events = Events(Console(stream))
    told = {"lr": 0.05 / 3, "weight_decay": 5e-6, "momentum": 0.9, "dropout": None}
    events.emit(TrialEnded(2, 6, told, "top-1 accuracy", 0.91239, 3.14))
    events.emit(TrialEnded(3, 6, told | {"dropout": 0.0}, "", None, 0.2, "loss is NaN\x1b[1m", stored=True))
    first, second = stream.getvalue().splitlines()
    assert first == ("  trial 2 of 6 (lr 0.01667, weight decay 5e-06, momentum 0.9): top-1 accuracy 0.9124, 3.1 s")
    assert second.startswith(
        "  trial 3 of 6 (lr 0.01667, weight decay 5e-06, momentum 0.9, dropout 0): lost: loss is NaN"
    )
    assert second.endswith("done before")
    assert "\x1b" not in second
