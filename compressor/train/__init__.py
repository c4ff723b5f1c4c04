"""Training: fine-tuning and search by gradient, with distillation, and resumed bit for bit after a kill."""

from __future__ import annotations

from compressor.process.progress import Progress, make_progress
from compressor.train.batchnorm import recalibrate_batchnorm
from compressor.train.config import StepSettings, TrainConfig
from compressor.train.hooks import Hooks, Stateful
from compressor.train.loop import Span, Trainer, TrainResult
from compressor.train.objectives.evaluate import Metrics, evaluate
from compressor.train.objectives.objective import METRICS, Metric, Objective, objective
from compressor.train.objectives.outputs import primary_output

__all__ = [
    "METRICS",
    "Hooks",
    "Metric",
    "Metrics",
    "Objective",
    "Progress",
    "Span",
    "Stateful",
    "StepSettings",
    "TrainConfig",
    "TrainResult",
    "Trainer",
    "evaluate",
    "make_progress",
    "objective",
    "primary_output",
    "recalibrate_batchnorm",
]
