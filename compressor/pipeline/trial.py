"""One trial of the tuning: a copy of the network is trained for a while, as fine-tuning would, and scored."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor, nn
from torch.nn.modules.dropout import _DropoutNd

from compressor.data.base import Split
from compressor.data.task import Task
from compressor.errors import TrainingError
from compressor.nn.copying import deep_copy
from compressor.pipeline.grid import Hyperparameters
from compressor.pipeline.training import fit
from compressor.process.progress import Progress
from compressor.report.tuning import Trial
from compressor.train import evaluate
from compressor.train.config import StepSettings
from compressor.train.resume.checkpoint import Checkpoint


@dataclass(frozen=True)
class TrialData:
    """What a trial trains on and is scored on."""

    train: Split
    val: Split
    task: Task


@dataclass(frozen=True)
class Ground:
    """What all trials of a job have in common; nothing in it is changed. It is pickled for trials side by side."""

    model: nn.Module
    teacher: nn.Module | None
    data: TrialData
    epochs: int
    lr: float
    batch_size: int
    distill: float
    seed: int
    loss_fn: Callable[[Any, Tensor], Tensor] | None
    steps: StepSettings = field(default_factory=StepSettings)


def has_dropout(model: nn.Module) -> bool:
    """Whether a network has modules that ``set_dropout_`` reaches."""
    return any(isinstance(module, _DropoutNd) for module in model.modules())


def set_dropout_(model: nn.Module, rate: float | None) -> None:
    """Set the rate of all dropout modules; None leaves them as they are."""
    if rate is not None:
        for module in model.modules():
            if isinstance(module, _DropoutNd):
                module.p = rate


def run_trial(
    ground: Ground,
    number: int,
    hyperparameters: Hyperparameters,
    checkpoint: Path | None,
    progress: Progress | None = None,
) -> Trial:
    """Train and score. A run that diverges is lost, with its reason; other errors are raised.

    Args:
        checkpoint: file to save to and go on from.
    """
    started = time.perf_counter()
    model = deep_copy(ground.model)
    set_dropout_(model, hyperparameters.dropout)
    data, score, metric, lost, before = ground.data, None, "", None, 0.0
    try:
        result = fit(
            model,
            data,
            ground,
            ground.epochs,
            teacher=ground.teacher,
            checkpoint=checkpoint,
            progress=progress,
            hyperparameters=hyperparameters,
        )
        before = result.seconds
        started = time.perf_counter()
        found = evaluate(model, data.val, loss_fn=ground.loss_fn, task=data.task)
        score, metric = found.score, found.metric.name
        if found.lost:
            score, lost = None, "its loss on the held-out samples is not finite"
    except TrainingError as error:
        # Where the checkpoint lies is of no use in a report: it goes with the end of the trial.
        lost = str(error).replace(Checkpoint(checkpoint, 0.0).note(), "")
    return Trial(
        number=number,
        lr=hyperparameters.lr,
        weight_decay=hyperparameters.weight_decay,
        momentum=hyperparameters.momentum,
        dropout=hyperparameters.dropout,
        score=score,
        epochs=ground.epochs,
        samples=len(data.train),
        seconds=before + time.perf_counter() - started,
        lost=lost,
        metric=metric,
    )
