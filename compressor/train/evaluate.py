"""Loss and accuracy of a model on a split."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from compressor.errors import DataError
from compressor.train.losses import LossFn, check_class_targets, cross_entropy
from compressor.train.modes import mode, model_device
from compressor.train.outputs import primary_output
from compressor.train.splits import Split, batch_count, call_model, to_device


@dataclass(frozen=True)
class Metrics:
    """What an evaluation found."""

    accuracy: float | None
    """Fraction of targets that have the highest logit; None if the targets are not class indices."""
    loss: float
    """Mean over samples."""
    count: int
    """Samples seen."""


def evaluate(
    model: nn.Module,
    split: Split,
    batch_size: int = 256,
    device: torch.device | None = None,
    *,
    loss_fn: LossFn | None = None,
) -> Metrics:
    """Run the model over the split in evaluation mode, without gradients; the modes it had come back.

    Args:
        device: where the model is; found out if not given.
        loss_fn: ``loss_fn(outputs, targets)``; cross entropy if not given. For pixels with classes of their own the
            accuracy is that of pixels.

    Raises:
        DataError: the split is empty, or the targets do not fit the model's outputs.
    """
    where = device or model_device(model)
    objective = loss_fn or cross_entropy()
    losses: list[Tensor] = []
    correct: list[Tensor] = []
    counts: list[int] = []
    decided = 0
    with mode(model, training=False), torch.no_grad():
        for inputs, targets in split.batches(batch_size):
            moved = to_device(targets, where)
            outputs = call_model(model, to_device(inputs, where))
            if loss_fn is None and not counts:
                check_class_targets(primary_output(outputs), moved)
            losses.append(objective(outputs, moved))
            counts.append(batch_count(moved))
            hits = _hits(outputs, moved)
            if hits is not None:
                correct.append(hits)
                decided += moved.numel()
    if not counts:
        raise DataError("The split to evaluate on is empty; give data with at least one sample.")
    weights = torch.tensor(counts, dtype=torch.float64)
    loss = float((torch.stack(losses).double().cpu() * weights).sum() / weights.sum())
    accuracy = int(torch.stack(correct).sum()) / decided if decided else None
    return Metrics(accuracy=accuracy, loss=loss, count=sum(counts))


def _hits(outputs: Any, targets: Any) -> Tensor | None:
    """How many targets have the highest logit, or None if the targets are not class indices of these outputs."""
    if not isinstance(targets, Tensor) or targets.is_floating_point():
        return None
    logits = primary_output(outputs)
    if logits.ndim < 2 or logits.shape[:1] + logits.shape[2:] != targets.shape:
        return None
    return (logits.argmax(dim=1) == targets).sum()
