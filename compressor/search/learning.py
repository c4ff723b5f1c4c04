"""Training during a search: the method's settings and hooks on the program's own loop."""

from __future__ import annotations

from typing import Protocol

from compressor.data import Data
from compressor.errors import UsageError
from compressor.search.base import SearchContext
from compressor.train import Hooks, TrainConfig, Trainer, TrainResult
from compressor.train.splits import steps_per_epoch


class Schedule(Protocol):
    """What every method that learns has among its settings."""

    @property
    def epochs(self) -> int: ...
    @property
    def batch_size(self) -> int: ...
    @property
    def lr(self) -> float: ...
    @property
    def max_steps(self) -> int | None: ...


def require_data(context: SearchContext, method: str) -> Data:
    """The data to learn from. Raises ``UsageError`` if there is none."""
    if context.data is None:
        raise UsageError(f"{method} learns from data: pass --data (or data=), or use --search oneshot.")
    data: Data = context.data
    return data


def learn(context: SearchContext, data: Data, schedule: Schedule, hooks: Hooks, optimizer: str = "sgd") -> TrainResult:
    """Train ``context.model`` in place, with the context's loss, teacher, seed, checkpoint and progress."""
    config = TrainConfig(
        epochs=schedule.epochs,
        batch_size=schedule.batch_size,
        lr=schedule.lr,
        optimizer=optimizer,
        seed=context.seed,
        distill=context.distill,
        max_steps=schedule.max_steps,
        log_every=_log_every(data, schedule),
    )
    return Trainer(
        context.model,
        data,
        config,
        teacher=context.teacher,
        loss_fn=context.loss_fn,
        hooks=hooks,
        checkpoint=context.checkpoint,
        progress=context.progress,
    ).run()


def _log_every(data: Data, schedule: Schedule) -> int:
    """So often that a report can draw how the costs went, of a short search, too."""
    steps = schedule.epochs * steps_per_epoch(data.train, schedule.batch_size) if schedule.epochs else 0
    return max(1, min(20, (steps if schedule.max_steps is None else min(steps, schedule.max_steps)) // 50))
