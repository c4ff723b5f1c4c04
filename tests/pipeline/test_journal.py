"""What happens is written down, line by line, whatever becomes of the process or the disk; jobs say how they end."""

from __future__ import annotations

import errno
import json
import os
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import compressor
from compressor.errors import UnreachableBudgetError
from compressor.pipeline import journal
from compressor.pipeline.events import (
    MOST_STEPS,
    Event,
    Events,
    JobBegan,
    JobEnded,
    ListenerLostError,
    Message,
    Step,
    Warned,
    is_sample,
)
from compressor.pipeline.journal import Journal


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def test_every_event_is_a_line(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    told = Journal(path, append=False, now=lambda: datetime(2026, 1, 2, 3, 4, 5, 678901, UTC))
    told(Message("half a pair \ud800, a line\nand another, \x1b[31m"))
    told(Step("search", 1, 2, {"loss": float("nan"), "lr": 0.5}))
    told(JobEnded("done"))
    first, step, _ = lines(path)
    assert first["time"] == "2026-01-02T03:04:05.678Z"
    assert first["text"] == "half a pair \ud800, a line\nand another, \x1b[31m"
    assert step["values"] == {"loss": None, "lr": 0.5}
    assert b"\x1b" not in path.read_bytes()


@pytest.mark.parametrize("left", [b"", b'{"a": 1}\n', b'{"a": 1}\n{"b', b'{"hal', b'{"a": 1}\n' + b"x" * 200_000])
def test_a_half_line_of_a_process_that_died_goes(tmp_path: Path, left: bytes) -> None:
    path = tmp_path / "events.jsonl"
    path.write_bytes(left)
    Journal(path, append=True)(Message("on"))
    whole = left[: left.rfind(b"\n") + 1]
    assert path.read_bytes().startswith(whole)
    assert [line.get("text") for line in lines(path)] == [None] * whole.count(b"\n") + ["on"]
    Journal(path, append=False)(Message("anew"))
    assert [line["text"] for line in lines(path)] == ["anew"]


def test_of_many_steps_a_thousand_are_kept_and_the_last(tmp_path: Path) -> None:
    for total in (1, 7, MOST_STEPS, MOST_STEPS + 1, 12_345):
        kept = [done for done in range(1, total + 1) if is_sample(Step("search", done, total))]
        assert kept[-1] == total
        assert min(total, MOST_STEPS) / 2 <= len(kept) <= MOST_STEPS + 1
    told = Journal(tmp_path / "events.jsonl", append=False)
    for done in range(1, 5001):
        told(Step("search", done, 5000))
    assert [line["done"] for line in lines(tmp_path / "events.jsonl")] == list(range(5, 5001, 5))


def test_a_full_disk_ends_no_job_and_leaves_whole_lines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "events.jsonl"
    heard: list[Event] = []
    events = Events(Journal(path, append=False), heard.append)
    events.info("first")

    def full(file: int, data: bytes) -> int:
        if len(data) > 20:
            return write(file, data[:20])
        raise OSError(errno.ENOSPC, "No space left on device")

    write = os.write
    monkeypatch.setattr(journal.os, "write", full)
    events.info("second")
    events.info("third")
    assert [line["text"] for line in lines(path)] == ["first"]
    assert events.warnings == [f"What happens is no longer written to {path}: No space left on device."]
    assert [type(event) for event in heard] == [Message, Warned, Message, Message]


def test_it_writes_into_files_alone(tmp_path: Path) -> None:
    (tmp_path / "target").write_text("precious")
    (tmp_path / "link").symlink_to(tmp_path / "target")
    os.mkfifo(tmp_path / "pipe")
    for name in ("link", "pipe", ".", "missing/events.jsonl"):
        with pytest.raises(ListenerLostError):
            Journal(tmp_path / name, append=False)(Message("a"))
    assert (tmp_path / "target").read_text() == "precious"


def test_a_listener_that_is_lost_hears_no_more_and_any_other_error_ends_the_job() -> None:
    heard: list[Event] = []

    def lost(event: Event) -> None:
        heard.append(event)
        raise ListenerLostError("gone")

    events = Events(lost)
    events.info("a")
    events.info("b")
    assert len(heard) == 1
    assert events.warnings == ["gone"]

    def wrong(event: Event) -> None:
        raise ValueError("wrong")

    with pytest.raises(ValueError, match="wrong"):
        Events(wrong).info("a")


def net() -> nn.Module:
    return nn.Sequential(nn.Linear(8, 32), nn.ReLU(), nn.Linear(32, 4))


def test_python_tells_of_whole_jobs() -> None:
    heard: list[Event] = []
    x = torch.randn(1, 8)
    options = {"importance": lambda group: group.weights}
    compressor.compress(net(), x, {"params": "50%"}, scope=compressor.Scope(keep={"0": 4}), listeners=[heard.append])
    began, *_, ended = heard
    assert isinstance(began, JobBegan)
    assert began.name == "Sequential"
    assert began.configuration["budgets"] == {"params": "50%"}
    assert began.configuration["keep"] == ["0=4"]
    assert json.loads(json.dumps(began.configuration)) == began.configuration
    assert ended == JobEnded("done")
    with pytest.raises(UnreachableBudgetError):
        compressor.compress(net(), x, {"params": "1%"}, listeners=[heard.append])
    assert isinstance(heard[-1], JobEnded)
    assert heard[-1].status == "failed"
    assert str(heard[-1].error).startswith("UnreachableBudgetError: ")
    heard.clear()
    with pytest.raises(Exception, match="weights"):
        compressor.compress(net(), x, {"params": "50%"}, options=options, listeners=[heard.append])
    assert json.dumps(heard[0].to_json())
    heard.clear()
    compressor.sweep(net(), x, [{"params": "50%"}, {"params": "70%"}], listeners=[heard.append])
    assert isinstance(heard[0], JobBegan)
    assert heard[0].configuration["budgets"] == [{"params": "50%"}, {"params": "70%"}]
    assert sum(isinstance(event, JobEnded) for event in heard) == 1
