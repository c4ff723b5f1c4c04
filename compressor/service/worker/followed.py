"""What points of a sweep that run side by side tell while they run: read from the journals that they write."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any

from compressor.jobs.executors.base import Executor, JobTask
from compressor.service.worker.told import Tell, tell_of
from compressor.storage.places import EVENTS

_LOOK_SECONDS = 0.5
_MOST_BYTES = 1 << 20
"""Of a journal that are read at once."""


class Journaled:
    """The journal of a point, from its end on: what an earlier attempt wrote was told then.

    Args:
        path: where it is, or will be.
    """

    def __init__(self, path: Path) -> None:
        self._path, self._rest = path, b""
        self._position = path.stat().st_size if path.is_file() else 0

    def news(self) -> Iterator[dict[str, Any]]:
        """What was written since the last look, whole lines alone."""
        try:
            with self._path.open("rb") as file:
                if file.seek(0, 2) < self._position:  # it was begun anew
                    self._position, self._rest = 0, b""
                file.seek(self._position)
                while data := file.read(_MOST_BYTES):
                    self._position += len(data)
                    *lines, self._rest = (self._rest + data).split(b"\n")
                    for line in lines:
                        with suppress(ValueError, RecursionError):  # a job writes what it likes; this is no event
                            document = json.loads(line, parse_constant=_refused)
                            if isinstance(document, dict):
                                yield document
        except OSError:
            return  # not there yet


def _refused(text: str) -> None:
    raise ValueError(f"{text} is no JSON")


class FollowedExecutor:
    """Runs tasks of ``jobs.sweeps.run`` as another executor does, and tells what happens in them meanwhile.

    Args:
        inner: what runs them, in processes whose folders are seen here.
        tell: told from one thread at a time.
    """

    def __init__(self, inner: Executor, tell: Tell) -> None:
        self._inner, self._tell = inner, tell
        self._journals: dict[str, Journaled] = {}
        self._lock, self._over = threading.Lock(), threading.Event()
        self._thread = threading.Thread(target=self._follow, name="points of a sweep", daemon=True)

    def submit(self, task: JobTask) -> None:
        """See ``Executor.submit``."""
        with self._lock:
            self._journals[task.name] = Journaled(Path(task.arguments["config"]["out"]) / EVENTS)
        self._inner.submit(task)

    def results(self) -> Iterator[tuple[JobTask, Any]]:
        """See ``Executor.results``. All that a task told is told before it is yielded."""
        for task, found in self._inner.results():
            with self._lock:
                self._look(task.name)
                del self._journals[task.name]
            yield task, found

    def __enter__(self) -> FollowedExecutor:
        self._inner.__enter__()
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        try:
            self._inner.__exit__(kind, error, traceback)
        finally:
            self._over.set()
            self._thread.join()

    def _follow(self) -> None:
        while not self._over.wait(_LOOK_SECONDS):
            with self._lock:
                for name in self._journals:
                    self._look(name)
        with self._lock:  # of those that an error cut off
            for name in self._journals:
                self._look(name)

    def _look(self, name: str) -> None:
        for document in self._journals[name].news():
            tell_of(self._tell, name, document)
