"""What a child says: its events on their way to the outbox, and how it ended."""

from __future__ import annotations

import json
import threading
from collections.abc import Mapping
from contextlib import suppress
from typing import IO, Any

from compressor.printable import printable
from compressor.service.worker.outbox import Outbox, Progress

_LONGEST = 1 << 20


class Listening:
    """Reads the lines of a child in a thread, until the last process that could write one has ended.

    Attributes:
        stage_ended: set when a stage ended, which is worth a snapshot.
        ended: set when there is no more to read.
        end: ``"done"`` or ``"failed"``, if it came to its end.
        error: of one that failed, ``{"kind", "text", "exit_code"}``.
        too_much: it wrote a line that is none.
    """

    def __init__(self, events: IO[bytes], outbox: Outbox, progress: Progress) -> None:
        self._events, self._outbox, self._progress = events, outbox, progress
        self.stage_ended, self.ended = threading.Event(), threading.Event()
        self.end: str | None = None
        self.error: dict[str, Any] | None = None
        self.too_much = False
        self._thread = threading.Thread(target=self._read, name="events of a job", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Wait until all is read; its processes are dead."""
        self._thread.join(timeout=5)

    def _read(self) -> None:
        with suppress(OSError, ValueError), self._events:  # a pipe that was closed has nothing more to say
            while line := self._events.readline(_LONGEST):
                if not line.endswith(b"\n"):
                    self.too_much = len(line) == _LONGEST
                    break
                with suppress(ValueError, RecursionError):  # a job writes what it likes; this is no event
                    self._hear(json.loads(line))
        self.ended.set()
        self.stage_ended.set()

    def _hear(self, document: Any) -> None:
        """A line; user code may have written it, so that it is taken for nothing but data."""
        if not isinstance(document, Mapping):
            return
        if document.get("end") in ("done", "failed"):
            self.end = document["end"]
            self.error = _error(document.get("error")) if self.end == "failed" else None
        elif isinstance(document.get("event"), str) and isinstance(document.get("time"), str):
            self._progress.hear(document)
            self._outbox.put(document)
            if document["event"] == "StageEnded":
                self.stage_ended.set()


def _error(said: Any) -> dict[str, Any]:
    found = said if isinstance(said, Mapping) else {}
    code = found.get("exit_code")
    return {
        "kind": printable(str(found.get("kind") or "Error"))[:100],
        "text": printable(str(found.get("text") or "The job failed without a word."))[:4000],
        "exit_code": code if isinstance(code, int) and 0 < code < 256 else 1,
    }
