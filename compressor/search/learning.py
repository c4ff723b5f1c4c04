"""Training during a search: the method's settings and hooks on the program's own loop."""

from __future__ import annotations

from typing import Protocol

from compressor.data import Data
from compressor.errors import UsageError
from compressor.search.base import SearchContext
from compressor.train import Hooks, TrainConfig, Trainer, TrainResult


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
        log_every=20,
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
