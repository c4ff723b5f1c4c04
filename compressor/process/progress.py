"""How far a long run has come: a bar where a person looks at a terminal, a line now and then where a log is kept."""

from __future__ import annotations

import sys
import time
from typing import IO, TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from rich.progress import Progress as RichBars
    from rich.progress import TaskID


class Progress(Protocol):
    """Told by the training loop what happens; must return quickly."""

    def start(self, total_steps: int, done_steps: int) -> None:
        """The run begins, or goes on after ``done_steps``."""
        ...

    def advance(self, done_steps: int, **shown: float) -> None:
        """A step is done; ``shown`` are numbers worth showing."""
        ...

    def close(self) -> None:
        """The run ended, well or not."""
        ...


def make_progress(label: str, stream: IO[str] | None = None) -> Progress:
    """A bar if ``stream`` (stderr unless given) is a terminal, plain lines if not."""
    target = stream or sys.stderr
    return BarProgress(label, target) if target.isatty() else LineProgress(label, target)


class LineProgress:
    """One line at the start, every ``interval_s`` seconds, and at the end."""

    def __init__(self, label: str, stream: IO[str] | None = None, interval_s: float = 15.0) -> None:
        self._label = label
        self._stream = stream or sys.stderr
        self._interval_s = interval_s
        self._total = self._first = self._done = 0
        self._shown: dict[str, float] = {}
        self._started = self._last = 0.0

    def start(self, total_steps: int, done_steps: int) -> None:
        self._total, self._first, self._done = total_steps, done_steps, done_steps
        self._started = self._last = time.monotonic()
        resumed = f", going on after step {done_steps}" if done_steps else ""
        self._line(f"{total_steps} steps{resumed}")

    def advance(self, done_steps: int, **shown: float) -> None:
        self._done, self._shown = done_steps, shown
        now = time.monotonic()
        if now - self._last >= self._interval_s and done_steps < self._total:
            self._last = now
            left_s = (now - self._started) / max(1, done_steps - self._first) * (self._total - done_steps)
            self._line(f"step {done_steps}/{self._total}{_numbers(shown)}, {left_s:.0f} s left")

    def close(self) -> None:
        if self._done > self._first:
            seconds = time.monotonic() - self._started
            self._line(f"step {self._done}/{self._total}{_numbers(self._shown)}, {seconds:.0f} s")

    def _line(self, text: str) -> None:
        print(f"{self._label}: {text}", file=self._stream, flush=True)


class BarProgress:
    """A bar of rich's, with the loss beside it."""

    def __init__(self, label: str, stream: IO[str] | None = None) -> None:
        self._label = label
        self._stream = stream or sys.stderr
        self._bars: RichBars | None = None
        self._task: TaskID | None = None

    def start(self, total_steps: int, done_steps: int) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
        from rich.progress import Progress as RichBars

        self._bars = RichBars(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[numbers]}"),
            console=Console(file=self._stream),
            refresh_per_second=4,
        )
        self._task = self._bars.add_task(self._label, total=total_steps, completed=done_steps, numbers="")
        self._bars.start()

    def advance(self, done_steps: int, **shown: float) -> None:
        if self._bars is not None and self._task is not None:
            self._bars.update(self._task, completed=done_steps, numbers=_numbers(shown).removeprefix(", "))

    def close(self) -> None:
        if self._bars is not None:
            self._bars.stop()
            self._bars = None


def _numbers(shown: dict[str, float]) -> str:
    return "".join(f", {name} {value:.4g}" for name, value in shown.items())
