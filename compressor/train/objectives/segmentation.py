"""Segmentation: a class for every pixel, judged by how far predicted and true regions overlap."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from compressor.data.task import IGNORED, VOID
from compressor.train.objectives.losses import LossFn, check_class_targets, mean_cross_entropy
from compressor.train.objectives.outputs import primary_output
from compressor.train.objectives.scorers import Scored

_AUXILIARY, _AUXILIARY_WEIGHT = "aux", 0.5


def segmentation_loss(label_smoothing: float = 0.0) -> LossFn:
    """Mean cross entropy over the pixels that count, for targets (N, H, W) of classes.

    Logits of another height and width are brought to that of the targets. An auxiliary head (``aux`` beside ``out``, as
    torchvision's models have one) adds half of its own loss (Zhao et al., "Pyramid Scene Parsing Network", 2017, gave
    such a head a weight of 0.4; torchvision's weights were trained with 0.5).
    """

    def loss(outputs: Any, targets: Any) -> Tensor:
        found = _of(primary_output(outputs), targets)
        if isinstance(outputs, Mapping) and isinstance(outputs.get(_AUXILIARY), Tensor):
            found = found + _AUXILIARY_WEIGHT * _of(outputs[_AUXILIARY], targets)
        return found

    def _of(logits: Tensor, targets: Tensor) -> Tensor:
        return mean_cross_entropy(_sized(logits, targets), marked(targets, logits), label_smoothing)

    return loss


def check_masks(outputs: Any, targets: Any) -> None:
    """Refuse targets that are no masks of classes for these logits. Raises ``DataError``."""
    logits = primary_output(outputs)
    if isinstance(targets, Tensor) and logits.ndim == 4 and targets.ndim == 3:
        logits, targets = _sized(logits, targets), marked(targets, logits)
    check_class_targets(logits, targets)


def marked(targets: Tensor, logits: Tensor) -> Tensor:
    """Masks with ``IGNORED`` for pixels that do not count: masks on disk have 255 there, which is no class unless
    there are more than 255 of them."""
    return targets.long() if logits.shape[1] > VOID else targets.long().masked_fill(targets == VOID, IGNORED)


class Overlap:
    """The mean intersection over union, from a matrix of counts: a row for each class, a column for each answer."""

    def of_batch(self, outputs: Any, targets: Any) -> Tensor | None:
        """Counts (classes, classes); None if the targets are no masks for these outputs."""
        logits = primary_output(outputs)
        if not isinstance(targets, Tensor) or targets.is_floating_point() or logits.ndim != targets.ndim + 1:
            return None
        classes = logits.shape[1]
        wanted = marked(targets, logits).flatten()
        said = _sized(logits, targets).argmax(1).flatten()
        counted = (wanted >= 0) & (wanted < classes)
        pairs = wanted[counted] * classes + said[counted]
        return torch.bincount(pairs.cpu(), minlength=classes**2).view(classes, classes)

    def of_all(self, kept: list[Any]) -> Scored | None:
        """The mean goes over classes that occur in the masks or the answers."""
        counts = torch.stack(kept).sum(0).double()
        both = counts.diagonal()
        either = counts.sum(0) + counts.sum(1) - both
        there = either > 0
        if not bool(there.any()):
            return None
        return Scored(float((both[there] / either[there]).mean()), float(both.sum() / counts.sum()))


def _sized(logits: Tensor, targets: Tensor) -> Tensor:
    """Logits with the height and width of the targets."""
    size = targets.shape[-2:]
    if logits.ndim != 4 or logits.shape[-2:] == size:
        return logits
    return functional.interpolate(logits, size=tuple(size), mode="bilinear", align_corners=False)
