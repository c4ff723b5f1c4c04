"""The task's loss: cross entropy unless the user brings another."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor
from torch.nn import functional

from compressor.data.task import IGNORED
from compressor.errors import DataError
from compressor.train.objectives.outputs import primary_output

LossFn = Callable[[Any, Any], Tensor]
"""``loss_fn(outputs, targets)``: the model's raw outputs and the split's targets to a scalar."""


def cross_entropy(label_smoothing: float = 0.0) -> LossFn:
    """Cross entropy on the primary output, for class indices (N, ...) or class probabilities (N, classes, ...)."""

    def loss(outputs: Any, targets: Any) -> Tensor:
        logits = primary_output(outputs)
        return mean_cross_entropy(logits, targets, label_smoothing)

    return loss


def mean_cross_entropy(logits: Tensor, targets: Tensor, label_smoothing: float = 0.0) -> Tensor:
    """Mean over the targets that count; 0, with a gradient of zeros, where no position does."""
    if targets.is_floating_point() or targets.ndim == 1:
        classes = targets if targets.is_floating_point() else targets.long()
        return functional.cross_entropy(logits, classes, label_smoothing=label_smoothing)
    total = functional.cross_entropy(
        logits, targets.long(), label_smoothing=label_smoothing, ignore_index=IGNORED, reduction="sum"
    )
    return total / (targets != IGNORED).sum().clamp_min(1)


def check_classes(outputs: Any, targets: Any) -> None:
    """``check_class_targets`` of the primary output."""
    check_class_targets(primary_output(outputs), targets)


def check_class_targets(logits: Tensor, targets: Any) -> None:
    """Refuse targets that cross entropy cannot be taken of, before it fails in a kernel.

    Raises:
        DataError: the targets are no tensor, do not match the logits, or name classes that the model lacks.
    """
    if not isinstance(targets, Tensor):
        raise DataError(f"Targets are {type(targets).__name__}, not a tensor; pass a loss_fn(outputs, targets).")
    if logits.ndim < 2:
        raise DataError(f"The model's output has shape {tuple(logits.shape)}, not (N, classes, ...); pass a loss_fn.")
    indices = tuple(logits.shape[:1] + logits.shape[2:])
    if targets.is_floating_point():
        if targets.shape != logits.shape:
            raise DataError(
                f"Targets of {targets.dtype} and shape {tuple(targets.shape)} are no class probabilities for logits "
                f"of shape {tuple(logits.shape)}; use whole-numbered classes or pass a loss_fn."
            )
        return
    if tuple(targets.shape) != indices:
        raise DataError(
            f"Targets have shape {tuple(targets.shape)}, expected {indices}, one class for each output."
            f"{_yes_or_no(logits, targets)}"
        )
    classes = logits.shape[1]
    highest = int(targets.max()) if targets.numel() else 0
    if highest >= classes:
        raise DataError(
            f"A target names class {highest}, but the model has {classes} outputs (classes 0 to {classes - 1}); "
            f"load it with num_classes={highest + 1} or relabel the data.{_yes_or_no(logits, targets)}"
        )
    if (strange := targets[(targets < 0) & (targets != IGNORED)]).numel():
        raise DataError(
            f"A target names class {int(strange[0])}; classes count from 0, and {IGNORED} marks what does not count."
        )


def _yes_or_no(logits: Tensor, targets: Tensor) -> str:
    """What to do about a network with one output that says whether something is so."""
    if logits.shape[1] != 1 or not targets.numel() or bool((targets > 1).any()):
        return ""
    return (
        " Where one output stands for yes and no, pass a loss_fn that says so: lambda outputs, targets: "
        "binary_cross_entropy_with_logits(outputs.flatten(), targets.flatten().float())."
    )
