"""What the trials before fine-tuning found, as records."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated

from compressor.report.structure import Count
from compressor.storage.codec import Range


@dataclass(frozen=True)
class Trial:
    """One setting of fine-tuning that was tried.

    Attributes:
        number: from 1 on, in the order of the grid.
        lr, weight_decay, momentum: what it was told; ``dropout`` is None where modules were left as they are.
        score: what ``metric`` says on the held-out samples; None if it is lost.
        epochs: that it was trained for, with ``samples`` training samples in each.
        seconds: of training and scoring.
        lost: why it has no score; None if it has one.
    """

    number: Count
    lr: float
    weight_decay: float
    momentum: float
    dropout: float | None
    score: float | None
    epochs: Count
    samples: Count
    seconds: Annotated[float, Range(0, 1e12)]
    lost: str | None = None
    metric: str = ""


@dataclass(frozen=True)
class Tuning:
    """All trials, in the order of the grid.

    Attributes:
        grid: what they are of: ``"short"``, ``"paper"`` or ``"own"``.
        metric: what the scores are, empty if all were lost; ``held_out`` samples of ``split`` gave them: ``"val"``, or
            ``"train"`` where the report quotes that one.
        won: number of the trial whose settings fine-tuning took; None if all were lost, and it took the job's own.
    """

    grid: str
    metric: str
    lower_is_better: bool
    split: str
    held_out: Count
    won: Count | None = None
    trials: list[Trial] = field(default_factory=list)

    @property
    def winner(self) -> Trial | None:
        """The trial that won."""
        return next((trial for trial in self.trials if trial.number == self.won), None)
