"""Several labels for each sample: their loss, and how well each label's samples are ranked."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from compressor.data.task import require_labels
from compressor.errors import DataError
from compressor.train.objectives.losses import LossFn
from compressor.train.objectives.outputs import primary_output


def binary_cross_entropy(label_smoothing: float = 0.0) -> LossFn:
    """Mean over samples and labels of the cross entropy of sigmoid(logit), for targets (N, labels) of 0 and 1."""

    def loss(outputs: Any, targets: Any) -> Tensor:
        logits = primary_output(outputs).float()
        wanted = targets.to(logits.dtype) * (1 - label_smoothing) + label_smoothing / 2
        return functional.binary_cross_entropy_with_logits(logits, wanted)

    return loss


def check_labels(outputs: Any, targets: Any) -> None:
    """Refuse targets that are no labels for these logits, (N, labels). Raises ``DataError``."""
    logits = primary_output(outputs)
    if not isinstance(targets, Tensor):
        raise DataError(f"Targets are {type(targets).__name__}, not a tensor; pass a loss_fn(outputs, targets).")
    require_labels(targets)
    if logits.shape != targets.shape:
        raise DataError(
            f"Targets are labels of shape {tuple(targets.shape)}, but the model's output has {tuple(logits.shape)}; "
            f"load it with num_classes={targets.shape[1]}, or pass a loss_fn."
        )


def average_precision(scores: Tensor, applies: Tensor) -> float:
    """How well ``scores`` (N,) rank the samples that a label ``applies`` to, (N,) booleans, some of them true.

    The mean over those samples of the precision where they are found: of all samples with at least their score, the
    share that the label applies to. Equal scores count alike, so the order of samples does not matter.
    """
    found = scores[applies].double().sort().values
    everything = scores.double().sort().values
    right = len(found) - torch.searchsorted(found, found)
    returned = len(everything) - torch.searchsorted(everything, found)
    return float((right.double() / returned).mean())


def mean_average_precision(scores: Tensor, targets: Tensor) -> float | None:
    """The mean of ``average_precision`` over the labels that apply to some samples and not to others.

    Args:
        scores: (N, labels), logits or any growing function of them.
        targets: (N, labels) of 0 and 1, or booleans.

    Returns:
        A fraction, higher is better; None where scores are NaN, or no label is there and missing.
    """
    if bool(scores.isnan().any()):
        return None
    found = [
        average_precision(score, applies)
        for score, applies in zip(scores.unbind(1), targets.bool().unbind(1), strict=True)
        if bool(applies.any()) and not bool(applies.all())
    ]
    return math.fsum(found) / len(found) if found else None
