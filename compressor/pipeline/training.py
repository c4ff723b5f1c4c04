"""What the stages of a job train and evaluate with: the settings of the job turned into a ``Trainer``'s."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

from torch import Tensor, nn

from compressor.data import Data
from compressor.nn.generated import computed, settle_
from compressor.options.shared import OF_ADAMW, WEIGHT_DECAYS
from compressor.pipeline.grid import Hyperparameters
from compressor.pipeline.settings import Settings
from compressor.process.progress import Progress
from compressor.train import TrainConfig, Trainer, TrainResult, evaluate
from compressor.train.config import StepSettings
from compressor.train.generated import ComputedWeights
from compressor.train.splits import TrainData


class Told(Protocol):
    """The settings that training is told by; ``Settings`` are some."""

    @property
    def lr(self) -> float: ...
    @property
    def batch_size(self) -> int: ...
    @property
    def distill(self) -> float: ...
    @property
    def seed(self) -> int: ...
    @property
    def steps(self) -> StepSettings: ...
    @property
    def loss_fn(self) -> Callable[[Any, Tensor], Tensor] | None: ...


def own_hyperparameters(settings: Told) -> Hyperparameters:
    """What fine-tuning is told where nothing was tuned."""
    return Hyperparameters(settings.lr, WEIGHT_DECAYS[settings.steps.optimizer], TrainConfig.momentum)


def fit(
    model: nn.Module,
    data: TrainData,
    settings: Told,
    epochs: int,
    *,
    teacher: nn.Module | None,
    checkpoint: Path | None,
    progress: Progress | None,
    hyperparameters: Hyperparameters | None = None,
    steps_before: int = 0,
    anew: Callable[[str], None] | None = None,
) -> TrainResult:
    """Train in place: by the job's optimizer, or AdamW where the weights are computed by a small network, at a fifth of
    the rate where that is one of SGD.

    Args:
        hyperparameters: what a tuning chose; the job's own settings unless given. Its dropout is the caller's to set.
        steps_before: of the search, whose schedule this goes on with.
        anew: told why, if the training begins anew, see ``Trainer``.
    """
    source, optimizer = computed(model), settings.steps.optimizer
    told = hyperparameters or own_hyperparameters(settings)
    of_sgd = optimizer == "sgd"
    config = TrainConfig(
        epochs=epochs,
        batch_size=settings.batch_size,
        lr=told.lr / OF_ADAMW if source is not None and of_sgd else told.lr,  # rates of AdamW are smaller
        optimizer=optimizer if source is None else "adamw",
        momentum=told.momentum,
        weight_decay=told.weight_decay,
        distill=settings.distill if teacher is not None else 0.0,
        seed=settings.seed,
        steps_before=steps_before,
        **settings.steps.told(),
    )
    found = Trainer(
        model,
        data,
        config,
        hooks=None if source is None else ComputedWeights(source),
        teacher=teacher if config.distill else None,
        loss_fn=settings.loss_fn,
        checkpoint=checkpoint,
        progress=progress,
        anew=anew,
    ).run()
    settle_(model)
    return found


def score(model: nn.Module, data: Data, settings: Settings) -> dict[str, Any]:
    """``score``, ``samples`` and the ``metric``'s name on the test split, or on the validation split without one."""
    split = data.test if data.test is not None else data.val
    found = evaluate(model, split, loss_fn=settings.loss_fn, task=data.task)
    return {"score": found.score, "samples": found.count, "metric": found.metric.name}
