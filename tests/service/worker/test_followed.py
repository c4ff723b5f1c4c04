"""Points of a sweep that run elsewhere are told of from their journals: each event once, in order, before their end."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from compressor.jobs.executors.base import JobTask
from compressor.pipeline.events import Event, JobBegan, JobEnded, Message, StageBegan, Step
from compressor.pipeline.journal import Journal
from compressor.service.worker import followed
from compressor.service.worker.followed import FollowedExecutor, Journaled
from compressor.storage.places import EVENTS


class Elsewhere:
    """Runs tasks one after the other; each writes its journal, with a pause until it is told to go on."""

    def __init__(self, events: list[Event], fails: bool = False) -> None:
        self.tasks: list[JobTask] = []
        self.go, self._events, self._fails = threading.Event(), events, fails

    def submit(self, task: JobTask) -> None:
        self.tasks.append(task)

    def results(self) -> Iterator[tuple[JobTask, Any]]:
        for task in self.tasks:
            place = Path(task.arguments["config"]["out"])
            place.mkdir(parents=True, exist_ok=True)
            journal = Journal(place / EVENTS, append=True)
            for event in self._events:
                journal(event)
            assert self.go.wait(30)
            journal(Message("its end"))
            journal.close()
            if self._fails:
                raise RuntimeError("it died")
            yield task, {"row": task.name}

    def __enter__(self) -> Elsewhere:
        return self

    def __exit__(self, *_: object) -> None:
        pass


def task_of(folder: Path, name: str) -> JobTask:
    return JobTask(name, "m:f", {"config": {"out": str(folder / name)}})


def test_stages_are_told_by_the_name_of_their_point_while_it_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(followed, "_LOOK_SECONDS", 0.01)
    events = [JobBegan("p"), StageBegan("search"), Step("search", 1, 2, {"loss": float("nan")}), JobEnded("done")]
    inner, told = Elsewhere(events), list[Mapping[str, Any]]()
    with FollowedExecutor(inner, told.append) as executor:
        for name in ("flops=40%", "flops=70%"):
            executor.submit(task_of(tmp_path, name))
        ends: list[str] = []

        def take() -> None:
            for task, row in executor.results():
                assert row == {"row": task.name}
                ends.append(f"{task.name} {told[-1]['text']}")

        taking = threading.Thread(target=take)
        taking.start()
        until = time.monotonic() + 20
        while len(told) < 2:
            assert time.monotonic() < until, "it is told before it has ended"
            time.sleep(0.005)
        assert ends == []
        inner.go.set()
        taking.join(20)
    assert ends == ["flops=40% its end", "flops=70% its end"]
    first = [each for each in told if each["point"] == "flops=40%"]
    assert [each["event"] for each in first] == ["StageBegan", "Step", "Message"]
    assert [each.get("stage") for each in first] == ["flops=40% search", "flops=40% search", None]
    assert first[1]["values"] == {"loss": None}
    assert len(told) == 6


def test_what_a_point_said_before_it_died_is_told(tmp_path: Path) -> None:
    inner, told = Elsewhere([StageBegan("search")], fails=True), list[Mapping[str, Any]]()
    inner.go.set()

    def run() -> None:
        with FollowedExecutor(inner, told.append) as executor:
            executor.submit(task_of(tmp_path, "p"))
            list(executor.results())

    with pytest.raises(RuntimeError, match="it died"):
        run()
    assert [each["event"] for each in told] == ["StageBegan", "Message"]


def test_a_journal_is_read_from_where_an_attempt_begins(tmp_path: Path) -> None:
    path = tmp_path / EVENTS
    line = json.dumps({"event": "Message", "text": "earlier"}) + "\n"
    path.write_text(line)
    journal = Journaled(path)
    assert list(journal.news()) == []
    with path.open("a") as file:
        file.write('{"event": "Message", "text": "new"}\n{"event": "Mess')
        file.flush()
        assert [each["text"] for each in journal.news()] == ["new"]
        file.write('age", "text": "half"}\nno JSON\n[1]\n{"event": NaN}\n' + "[" * 100_000 + "\n")
    assert [each["text"] for each in journal.news()] == ["half"]
    path.write_text('{"event": "Message", "text": "anew"}\n')
    assert [each["text"] for each in journal.news()] == ["anew"]
    assert list(Journaled(tmp_path / "nowhere").news()) == []
