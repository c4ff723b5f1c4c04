"""A listener that writes to a terminal or a log: to stderr, so that stdout holds the result alone."""

from __future__ import annotations

import sys
from contextlib import suppress
from typing import IO, TYPE_CHECKING

from compressor.pipeline.events import (
    Event,
    Message,
    StageBegan,
    StageEnded,
    Step,
    TrainingBegan,
    TrainingEnded,
    TrialEnded,
    Warned,
)
from compressor.printable import printable

if TYPE_CHECKING:
    from compressor.process.progress import Progress


class Console:
    """Writes events as lines, and training as a bar where a person looks at a terminal.

    Args:
        stream: where to write; stderr unless given.
        quiet: write warnings only.
    """

    def __init__(self, stream: IO[str] | None = None, *, quiet: bool = False) -> None:
        self._stream = stream
        self.quiet = quiet
        self.steps = not quiet
        self._progress: Progress | None = None

    def __call__(self, event: Event) -> None:
        if isinstance(event, Warned):
            self._warn(event.text)
        elif self.quiet:
            return
        elif isinstance(event, Message):
            self._line(printable(event.text))
        elif isinstance(event, StageBegan):
            self._line(f"{event.stage} ...")
        elif isinstance(event, StageEnded):
            self._line(f"{event.stage}: {event.seconds:.1f} s")
        elif isinstance(event, TrialEnded):
            self._line(_of_trial(event))
        elif isinstance(event, TrainingBegan):
            from compressor.process.progress import make_progress

            self._progress = make_progress(event.stage, self._target())
            self._progress.start(event.total, event.done)
        elif isinstance(event, Step) and self._progress is not None:
            self._progress.advance(event.done, **event.values)
        elif isinstance(event, TrainingEnded) and self._progress is not None:
            self._progress.close()
            self._progress = None

    def _warn(self, text: str) -> None:
        label = "\033[1;33mWarning:\033[0m" if self._target().isatty() else "Warning:"
        self._line(f"{label} {printable(text)}")

    def _target(self) -> IO[str]:
        # Looked up on use: stderr may have been replaced since.
        return self._stream if self._stream is not None else sys.stderr

    def _line(self, text: str) -> None:
        with suppress(OSError, ValueError):  # stderr may be full or closed, and a message must not end a job
            print(text, file=self._target(), flush=True)


def _of_trial(event: TrialEnded) -> str:
    """``  trial 2 of 6 (lr 0.05, weight decay 5e-06, momentum 0.9): top-1 accuracy 0.9124, 3.1 s``."""
    told = ", ".join(f"{name.replace('_', ' ')} {x:.4g}" for name, x in event.settings.items() if x is not None)
    found = f"{event.metric} {event.score:.4g}" if event.score is not None else f"lost: {printable(str(event.lost))}"
    when = "done before" if event.stored else f"{event.seconds:.1f} s"
    return f"  trial {event.number} of {event.count} ({told}): {found}, {when}"
