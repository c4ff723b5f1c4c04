"""Events of a job on their way to the server: numbered, in order, and bounded while the server is away."""

from __future__ import annotations

import json
import threading
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

MOST_WAITING = 5_000
MOST_BYTES = 8 << 20
MOST_OF_A_JOB = 50_000
"""Of one attempt. A compression has some thousands."""
_MOST_STEPS = 1 << 50
_ESSENTIAL = ("JobBegan", "JobEnded", "StageBegan", "StageEnded", "Decision", "Metric", "FileWritten", "TrainingBegan")


@dataclass
class Progress:
    """Where a job is: its stage, and how many of how many steps of it are done, where that is known."""

    stage: str | None = None
    done: int | None = None
    total: int | None = None

    def hear(self, event: Mapping[str, Any]) -> None:
        """Follow an event."""
        kind = event.get("event")
        if kind == "StageBegan":
            self.stage, self.done, self.total = str(event.get("stage"))[:100], None, None
        elif kind in ("TrainingBegan", "Step"):
            self.done, self.total = _count(event.get("done")), _count(event.get("total"))
        elif kind == "TrialEnded":
            self.total = _count(event.get("count"))
            self.done = None if self.total is None else min((self.done or 0) + 1, self.total)


class Outbox:
    """Takes events from one thread and gives them to another. What does not fit goes: steps first, the oldest first,
    then messages; what a job began and decided stays."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._waiting: deque[dict[str, Any]] = deque()
        self._bytes, self._numbered, self._left_out = 0, 0, 0

    def put(self, event: Mapping[str, Any]) -> None:
        """Take an event: ``{"time", "event", ...}``."""
        body = {name: value for name, value in event.items() if name not in ("time", "event")}
        kind, size = str(event.get("event"))[:60], len(json.dumps(body))
        with self._lock:
            if self._numbered >= MOST_OF_A_JOB and kind not in _ESSENTIAL:
                self._left_out += 1
                return
            document = {"number": self._numbered, "time": event.get("time"), "event": kind, "body": body}
            self._numbered += 1
            self._waiting.append({**document, "size": size})
            self._bytes += size
            if len(self._waiting) > MOST_WAITING or self._bytes > MOST_BYTES:
                self._make_room()

    def first(self, count: int = 200, most_bytes: int = 256 << 10) -> list[dict[str, Any]]:
        """The next ones to send; they stay until ``sent``."""
        found: list[dict[str, Any]] = []
        size = 0
        with self._lock:
            for each in self._waiting:
                size += each["size"]
                if len(found) == count or (found and size > most_bytes):
                    break
                found.append({name: value for name, value in each.items() if name != "size"})
        return found

    def sent(self, last: int) -> None:
        """The server has everything up to the number ``last``."""
        with self._lock:
            while self._waiting and self._waiting[0]["number"] <= last:
                self._bytes -= self._waiting.popleft()["size"]

    @property
    def left_out(self) -> int:
        """How many events were too many."""
        return self._left_out

    def __len__(self) -> int:
        return len(self._waiting)

    def _make_room(self) -> None:
        """Drop until three quarters of the room are taken, or nothing is left that may go."""
        for may_go in (lambda kind: kind == "Step", lambda kind: kind not in _ESSENTIAL):
            kept: deque[dict[str, Any]] = deque()
            over_count = len(self._waiting) - MOST_WAITING * 3 // 4
            over_bytes = self._bytes - MOST_BYTES * 3 // 4
            for each in self._waiting:
                if (over_count > 0 or over_bytes > 0) and may_go(each["event"]):
                    over_count, over_bytes = over_count - 1, over_bytes - each["size"]
                    self._bytes -= each["size"]
                    self._left_out += 1
                else:
                    kept.append(each)
            self._waiting = kept
            if over_count <= 0 and over_bytes <= 0:
                return


def _count(value: Any) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= _MOST_STEPS else None
