"""What a task asks of training: the loss to minimise, the metric to report, what a teacher adds."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from compressor.data.batches import sample_count
from compressor.data.task import IGNORED, VOID, Task
from compressor.errors import DataError, UsageError
from compressor.train.objectives.detection import BoxPrecision, check_boxes, summed_losses
from compressor.train.objectives.distill import distillation_loss, label_distillation_loss
from compressor.train.objectives.labels import binary_cross_entropy, check_labels
from compressor.train.objectives.language import Perplexity, check_tokens, language_distillation_loss, next_token_loss
from compressor.train.objectives.losses import LossFn, check_classes, cross_entropy
from compressor.train.objectives.outputs import primary_output
from compressor.train.objectives.scorers import Hits, LabelPrecision, Scorer
from compressor.train.objectives.segmentation import Overlap, check_masks, segmentation_loss


@dataclass(frozen=True)
class Metric:
    """What a score is called, and which direction is better."""

    name: str
    lower_is_better: bool


TOP_1 = Metric("top-1 accuracy", lower_is_better=False)
TOP_1_DENSE = Metric("top-1 accuracy per position", lower_is_better=False)
RELATIVE_L2 = Metric("relative L2 error", lower_is_better=True)
MEAN_IOU = Metric("mean intersection over union", lower_is_better=False)
BOX_PRECISION = Metric("COCO mean average precision", lower_is_better=False)
MEAN_AP = Metric("mean average precision", lower_is_better=False)
PERPLEXITY = Metric("perplexity", lower_is_better=True)
SQUARED = Metric("mean squared error", lower_is_better=True)
LOSS = Metric("loss", lower_is_better=True)
METRICS = {
    metric.name: metric
    for metric in (TOP_1, TOP_1_DENSE, MEAN_IOU, BOX_PRECISION, MEAN_AP, RELATIVE_L2, PERPLEXITY, SQUARED, LOSS)
}


@dataclass(frozen=True)
class Objective:
    """The loss and metric of a task.

    Attributes:
        loss: ``loss(outputs, targets)`` to a scalar.
        check: refuses targets that the loss cannot be taken of: ``check(outputs, targets)`` raises ``DataError``.
        distillation_loss: ``distillation_loss(student's output, teacher's output)`` to a scalar; None where there is
            nothing to learn from.
        metric: what the score is.
        scorer: makes the score; None where it is the mean loss.
        model_loss: whether the model computes the loss itself, which it does in training mode alone.
        mean_over: how many things the loss of inputs and targets is a mean over; samples, unless given.
    """

    loss: LossFn
    check: Callable[[Any, Any], None]
    distillation_loss: Callable[[Tensor, Tensor], Tensor] | None
    metric: Metric
    scorer: Scorer | None = None
    model_loss: bool = False
    mean_over: Callable[[Any, Any], int] = sample_count


def objective(task: Task | None = None, *, label_smoothing: float = 0.0, temperature: float = 4.0) -> Objective:
    """Cross entropy and accuracy for classes, with mean intersection over union for masks; binary cross entropy and
    mean average precision for labels; relative L2 error for fields; mean squared error for other values; the
    model's own losses and COCO's precision for boxes."""
    if task is not None and task.is_detection:
        return Objective(summed_losses, check_boxes, None, BOX_PRECISION, BoxPrecision(), model_loss=True)
    if task is not None and task.is_language:

        def language_from_teacher(student: Tensor, teacher: Tensor) -> Tensor:
            return language_distillation_loss(student, teacher, temperature)

        loss = next_token_loss(label_smoothing)
        return Objective(loss, check_tokens, language_from_teacher, PERPLEXITY, Perplexity(), mean_over=_classes)
    if task is not None and task.is_multilabel:

        def labels_from_teacher(student: Tensor, teacher: Tensor) -> Tensor:
            return label_distillation_loss(student, teacher, temperature)

        loss = binary_cross_entropy(label_smoothing)
        return Objective(loss, check_labels, labels_from_teacher, MEAN_AP, LabelPrecision())
    if task is None or not task.is_regression:

        def from_teacher(student: Tensor, teacher: Tensor) -> Tensor:
            return distillation_loss(student, teacher, temperature)

        if task is not None and task.is_segmentation:
            loss = segmentation_loss(label_smoothing)
            return Objective(loss, check_masks, from_teacher, MEAN_IOU, Overlap(), mean_over=_pixels)
        metric = TOP_1_DENSE if task is not None and task.dense else TOP_1
        loss = cross_entropy(label_smoothing)
        return Objective(loss, check_classes, from_teacher, metric, Hits(), mean_over=_classes)
    loss, metric = (relative_l2, RELATIVE_L2) if task.relative else (squared_error, SQUARED)
    return Objective(loss, check_values, loss, metric)


def require_lesson(goal: Objective) -> Callable[[Tensor, Tensor], Tensor]:
    """The loss of distillation. Raises ``UsageError`` where there is none."""
    if goal.distillation_loss is None:
        raise UsageError(
            "Detectors are not distilled: each keeps its logits to itself, and the boxes that it returns are selected, "
            "so those of two networks do not correspond. Leave distill at 0 and choose a search that distils nothing "
            "(figs, dnarch, dash or oneshot, not supernet); more epochs of fine-tuning make up for it, or a loop of "
            "your own with compressor.prepare, which takes any loss."
        )
    return goal.distillation_loss


def relative_l2(outputs: Any, targets: Tensor) -> Tensor:
    """Mean over samples of |prediction - target| / |target|, L2 norms over everything else."""
    prediction, wanted = _aligned(primary_output(outputs), targets)
    # float32 under mixed precision: squares of small errors vanish in half precision.
    error: Tensor = torch.linalg.vector_norm((prediction.float() - wanted.float()).flatten(1), dim=1)
    size: Tensor = torch.linalg.vector_norm(wanted.float().flatten(1), dim=1)
    return (error / size.clamp_min(torch.finfo(torch.float32).tiny)).mean()


def squared_error(outputs: Any, targets: Tensor) -> Tensor:
    """Mean of (prediction - target) squared."""
    prediction, wanted = _aligned(primary_output(outputs), targets)
    return functional.mse_loss(prediction.float(), wanted.float())


def check_values(outputs: Any, targets: Any) -> None:
    """Refuse targets that are not of the prediction's shape. Raises ``DataError``."""
    prediction = primary_output(outputs)
    if not isinstance(targets, Tensor):
        raise DataError(f"Targets are {type(targets).__name__}, not a tensor; pass a loss_fn(outputs, targets).")
    ours, theirs = _aligned(prediction, targets)
    if ours.shape != theirs.shape:
        raise DataError(
            f"Targets have shape {tuple(targets.shape)}, but the model's output has {tuple(prediction.shape)}; use a "
            "model that gives one value for each target, or pass a loss_fn."
        )


def _classes(inputs: Any, targets: Any) -> int:
    """Targets that count, each with a class of its own."""
    if not isinstance(targets, Tensor) or targets.is_floating_point():
        return sample_count(inputs, targets)
    return int((targets != IGNORED).sum())


def _pixels(inputs: Any, targets: Any) -> int:
    """Pixels that count, whichever way they are marked."""
    if not isinstance(targets, Tensor):
        return sample_count(inputs, targets)
    return int(((targets != IGNORED) & (targets != VOID)).sum())


def _aligned(prediction: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """Both without a channel axis of one that the other lacks."""
    if prediction.ndim == targets.ndim + 1 and prediction.shape[1] == 1:
        return prediction.squeeze(1), targets
    if targets.ndim == prediction.ndim + 1 and targets.shape[1] == 1:
        return prediction, targets.squeeze(1)
    return prediction, targets
