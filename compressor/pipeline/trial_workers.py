"""Trials side by side, each in a process of its own. What they had trained when they were stopped lies in their
checkpoints."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from compressor.errors import CompressorError
from compressor.pipeline.grid import Hyperparameters
from compressor.pipeline.trial import Ground, run_trial
from compressor.process.pool import WHY_DEAD, NotHandedOver, side_by_side
from compressor.report.tuning import Trial

__all__ = ["NotHandedOver", "run_side_by_side"]

Task = tuple[int, Hyperparameters, Path | None]


def run_side_by_side(ground: Ground, tasks: Sequence[Task], workers: int, done: Callable[[Trial], None]) -> None:
    """Run the trials in up to ``workers`` processes; ``done`` is told of each as it ends, in this thread.

    Each process has its share of the threads of this one, and at least one.

    Raises:
        NotHandedOver: nothing, or not all, has been run, as it cannot be handed over.
        CompressorError: a process died; names its trial. The others are stopped.
    """
    side_by_side(_work, ground, tasks, workers, lambda _, trial: done(trial), died=_died)


def _work(ground: Ground, task: Task) -> Trial:
    number, hyperparameters, checkpoint = task
    return run_trial(ground, number, hyperparameters, checkpoint)


def _died(task: Task) -> CompressorError:
    number, hyperparameters, _ = task
    return CompressorError(
        f"The process of trial {number} of the tuning ({hyperparameters}) died; {WHY_DEAD}. "
        "Trials that had ended are kept: run again, with fewer trial_workers (--trial-workers)."
    )
