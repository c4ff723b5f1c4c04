"""Training during a search: the method's settings and hooks on the program's own loop.

Once it is decided what is kept, the steps that are left train the trimmed network itself (``trimmed``).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import nn

from compressor.data import Data
from compressor.errors import TrainingError, UsageError
from compressor.masks import Masking, Pass
from compressor.options.shared import LRS, OF_ADAMW, WEIGHT_DECAYS
from compressor.search.base import SearchContext
from compressor.search.constraints.projector import Projector
from compressor.search.result import SearchResult
from compressor.search.training.decided_network import Trimmed
from compressor.train import Hooks, Progress, Span, TrainConfig, Trainer
from compressor.train.optim import optimizer_parameters
from compressor.train.splits import call_model, steps_per_epoch


class Schedule(Protocol):
    """What every method that learns has among its settings."""

    @property
    def epochs(self) -> int: ...
    @property
    def batch_size(self) -> int: ...
    @property
    def lr(self) -> float | None: ...
    @property
    def max_steps(self) -> int | None: ...


def require_data(context: SearchContext, method: str) -> Data:
    """The data to learn from. Raises ``UsageError`` if there is none."""
    if context.data is None:
        raise UsageError(f"{method} learns from data: pass --data (or data=), or use --search oneshot.")
    data: Data = context.data
    return data


class Learner(Hooks, ABC):
    """A method as the training loop sees it, the program's own or one of the user's."""

    projector: Projector
    masking: Masking
    seed: int | None = None
    """What masks are drawn from in a loop of the user's own, with the step; None draws from PyTorch's generator."""

    def applied(self) -> AbstractContextManager[Pass | None]:
        """Inside, the model runs with the masks of this step, the same in every forward; None if there are none."""
        return nullcontext()

    @property
    def learns(self) -> bool:
        """Whether what is decided on moves at the end of this step: to the end, unless a method decides before."""
        return True

    def order(self) -> list[int]:
        """What the masks were laid out by, if the weights had a say in it."""
        return []

    def arrange(self, order: Sequence[int]) -> None:
        """Lay the masks out as ``order`` said when the weights were others. Raises ``ValueError`` if it cannot be."""
        if len(order):
            raise ValueError(f"an order of {len(order)} elements, where none have one")

    def require_finite(self) -> None:
        """Raise ``TrainingError`` if a mask is NaN or infinite: nothing can be decided on it."""
        parameters = [p for optimizer in self.optimizers().values() for p in optimizer_parameters(optimizer)]
        if not all(bool(torch.isfinite(p).all()) for p in parameters):
            raise TrainingError(
                "What is kept cannot be decided, as masks have become NaN or infinite. Go on from an earlier "
                "checkpoint with a lower learning rate or clipped gradients, and look for NaN in the data."
            )

    def decides_after(self, total_steps: int) -> int | None:
        """Steps of ``total_steps`` after which ``settle`` may be called, and what it decides on be trained by itself;
        None if masks are needed to the end."""
        return None

    def settle(self) -> None:
        """Decide now and for good; weights then are those of the network decided on. Harmless when called again.
        Nothing to do where ``decides_after`` gives None."""

    @abstractmethod
    def decide(self, history: list[dict[str, Any]] | None = None) -> SearchResult:
        """What is kept."""

    def fold_(self, decision: SearchResult) -> None:
        """Bring into the weights what masks still did to those that are kept. Harmless when called again."""

    @property
    def call(self) -> Callable[[nn.Module, Any], Any]:
        """How the network that is trained by itself is run."""
        return call_model


def search_steps(data: Data, schedule: Schedule, accumulate: int = 1) -> int:
    """Steps of the optimizer in a search."""
    each = steps_per_epoch(data.train, schedule.batch_size, accumulate) if schedule.epochs else 0
    steps = schedule.epochs * each
    return steps if schedule.max_steps is None else min(steps, schedule.max_steps)


def rate(schedule: Schedule, context: SearchContext, optimizer: str | None = None) -> float:
    """The learning rate of the weights: what is given, what the method takes under the job's optimizer, or the job's.

    Args:
        optimizer: of the search, if not the job's.
    """
    if schedule.lr is not None:
        return schedule.lr
    of_job = context.steps.optimizer
    rates: Mapping[str, float] = getattr(schedule, "rates", {})
    if of_job in rates:
        return rates[of_job]
    found = LRS[of_job] if context.lr is None else context.lr
    return found / OF_ADAMW if (of_job, optimizer) == ("sgd", "adamw") else found


class _Trainers:
    """The trainers of the parts of one search: with the context's loss, teacher, seed and progress."""

    def __init__(
        self, context: SearchContext, data: Data, schedule: Schedule, optimizer: str | None, training: Mapping[str, Any]
    ) -> None:
        self._context, self._data = context, data
        self.total = search_steps(data, schedule, context.steps.accumulate)
        told: dict[str, Any] = {
            "epochs": schedule.epochs,
            "batch_size": schedule.batch_size,
            "lr": rate(schedule, context, optimizer),
            "optimizer": optimizer or context.steps.optimizer,
            "weight_decay": WEIGHT_DECAYS[context.steps.optimizer],
            "seed": context.seed,
            "distill": context.distill,
            "max_steps": schedule.max_steps,
            "steps_after": context.steps_after,
            **context.steps.told(),
            # So often that a report can draw how the costs of a short search went.
            "log_every": max(1, min(20, self.total // 50)),
        }
        self._config = TrainConfig(**{**told, **training})
        self._progress = None if context.progress is None else _Shared(context.progress)

    def __call__(self, model: nn.Module, hooks: Hooks, checkpoint: Path | None, span: Span | None = None) -> Trainer:
        context = self._context
        return Trainer(
            model,
            self._data,
            self._config,
            teacher=context.teacher,
            loss_fn=context.loss_fn,
            hooks=hooks,
            checkpoint=checkpoint,
            progress=self._progress,
            span=span,
            anew=context.tell,
        )

    def __enter__(self) -> _Trainers:
        return self

    def __exit__(self, *_: object) -> None:
        if self._progress is not None:
            self._progress.end()


def learn(
    context: SearchContext,
    data: Data,
    schedule: Schedule,
    learner: Learner,
    /,
    optimizer: str | None = None,
    **training: Any,
) -> SearchResult:
    """Train ``context.model`` in place, with the context's loss, teacher, seed, checkpoint and progress, and decide.

    Args:
        data: its training split may be ``Subsampled``.
        optimizer: of the weights; None: the job's. Rates and decays that are not given are those of the job's.
        training: fields of ``TrainConfig`` that are to be other than here, its ``schedule`` among them.
    """
    with _Trainers(context, data, schedule, optimizer, training) as trainer:
        until = learner.decides_after(trainer.total)
        if until is None or until >= trainer.total:
            decision = learner.decide(trainer(context.model, learner, context.checkpoint).run().history)
            learner.fold_(decision)
            return decision
        searching = trainer(context.model, learner, context.checkpoint, Span(0, until))
        history, optimizer_state = searching.run().history, searching.optimizer_state()
        del searching
        learner.settle()
        checkpoint = context.checkpoint and context.checkpoint.with_suffix(f".decided{context.checkpoint.suffix}")
        trimmed = Trimmed.of(context.model, context.graph, learner.decide(), data.train)
        if trimmed is None:
            rest = trainer(context.model, learner, checkpoint, Span(until, None, optimizer_state))
            return learner.decide([*history, *rest.run().history])
        span = Span(until, None, trimmed.optimizer_state(optimizer_state))
        del optimizer_state  # of the full network; memory that the small one is to do without
        history += trainer(trimmed.model, _Decided(learner), checkpoint, span).run().history
        trimmed.put_back_()
        return learner.decide(history)


def train_decided(
    context: SearchContext, data: Data, schedule: Schedule, decision: SearchResult, optimizer: str | None = None
) -> SearchResult:
    """Spend all steps of a search on what was decided before it; the weights in ``context.model`` are trained.

    Args:
        optimizer: of the weights; None: the job's.
    """
    trimmed = Trimmed.of(context.model, context.graph, decision, data.train)
    with _Trainers(context, data, schedule, optimizer, {}) as trainer:
        if trimmed is not None and trainer.total:
            trainer(trimmed.model, Hooks(), context.checkpoint).run()
            trimmed.put_back_()
    return decision


class _Decided(Hooks):
    """Trains what was decided on as any other network, and reports its costs."""

    def __init__(self, learner: Learner) -> None:
        self._learner = learner

    @property
    def plain(self) -> bool:
        return self._learner.call is call_model

    def forward(self, model: nn.Module, inputs: Any) -> Any:
        return self._learner.call(model, inputs)

    def log(self) -> dict[str, Any]:
        return self._learner.log()


class _Shared:
    """One progress for all parts of a search."""

    def __init__(self, progress: Progress) -> None:
        self._progress, self._started = progress, False

    def start(self, total_steps: int, done_steps: int) -> None:
        if not self._started:
            self._progress.start(total_steps, done_steps)
        self._started = True

    def advance(self, done_steps: int, **shown: float) -> None:
        self._progress.advance(done_steps, **shown)

    def close(self) -> None:
        """A part has ended."""

    def end(self) -> None:
        """All have."""
        if self._started:
            self._progress.close()
