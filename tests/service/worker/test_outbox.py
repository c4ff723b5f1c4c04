"""Events on their way: in order, numbered, bounded; and where a job is."""

from __future__ import annotations

import pytest

from compressor.service.worker import outbox as module
from compressor.service.worker.outbox import Outbox, Progress


def event(kind: str, **body: object) -> dict[str, object]:
    return {"time": "2030-01-01T00:00:00.000Z", "event": kind, **body}


def test_what_is_sent_goes_and_numbers_go_on() -> None:
    box = Outbox()
    for number in range(5):
        box.put(event("Step", done=number, total=5))
    first = box.first(3)
    assert [each["number"] for each in first] == [0, 1, 2]
    assert first[0] == {
        "number": 0,
        "time": "2030-01-01T00:00:00.000Z",
        "event": "Step",
        "body": {"done": 0, "total": 5},
    }
    assert box.first(3) == first  # until they are sent
    box.sent(2)
    assert [each["number"] for each in box.first()] == [3, 4]
    box.sent(4)
    assert len(box) == 0


def test_an_event_with_a_number_of_its_own_keeps_it() -> None:
    box = Outbox()
    box.put(event("TrialEnded", number=7, count=8))
    assert box.first()[0]["number"] == 0
    assert box.first()[0]["body"] == {"number": 7, "count": 8}


def test_what_does_not_fit_goes_by_worth(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST_WAITING", 40)
    box = Outbox()
    box.put(event("StageBegan", stage="search"))
    for number in range(200):
        box.put(event("Step", done=number, total=200))
        if number % 50 == 0:
            box.put(event("Metric", of="before", name="accuracy", value=0.5))
    box.put(event("Decision", costs={}))
    kinds = [each["event"] for each in box.first(1000)]
    assert len(kinds) <= 41
    assert kinds[0] == "StageBegan"
    assert kinds.count("Metric") == 4
    assert kinds[-1] == "Decision"
    assert box.left_out == 206 - len(kinds)
    for number in range(100):
        box.put(event("Message", text=str(number)))
    kinds = [each["event"] for each in box.first(1000)]
    assert {"StageBegan", "Metric", "Decision", "Message"} <= set(kinds)
    assert len(kinds) <= 41
    numbers = [each["number"] for each in box.first(1000)]
    assert numbers == sorted(numbers)


def test_large_events_are_bounded_by_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST_BYTES", 10_000)
    box = Outbox()
    for number in range(50):
        box.put(event("Message", text="x" * 1000 + str(number)))
    waiting = box.first(1000, most_bytes=1 << 20)
    assert sum(len(str(each["body"])) for each in waiting) <= 11_000
    assert waiting[-1]["body"]["text"].endswith("49")


def test_progress_follows_stages_and_steps() -> None:
    progress = Progress()
    progress.hear(event("StageBegan", stage="search"))
    progress.hear(event("TrainingBegan", stage="search", done=0, total=10))
    progress.hear(event("Step", stage="search", done=3, total=10))
    assert (progress.stage, progress.done, progress.total) == ("search", 3, 10)
    progress.hear(event("StageBegan", stage="trim"))
    assert (progress.stage, progress.done, progress.total) == ("trim", None, None)
    progress.hear(event("Step", done="many", total=-1))
    assert (progress.done, progress.total) == (None, None)
