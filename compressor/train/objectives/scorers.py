"""How well a network did on a whole split, from what is kept of each batch of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from compressor.data.task import IGNORED
from compressor.train.objectives.labels import mean_average_precision
from compressor.train.objectives.outputs import primary_output


@dataclass(frozen=True)
class Scored:
    """What a split scored; None for a score that is NaN or that there is none of. ``accuracy`` is the fraction of
    targets whose class had the highest logit, where targets are classes."""

    score: float | None
    accuracy: float | None = None


class Scorer(Protocol):
    """Keeps little of each batch, and scores them together, so that batches of any size score the same."""

    def of_batch(self, outputs: Any, targets: Any) -> Any | None:
        """Tensors, numbers, and lists, tuples and dicts of them; None where there is nothing to score."""
        ...

    def of_all(self, kept: list[Any]) -> Scored | None:
        """The score of all batches, at least one, in the order of the split; None where there is none."""
        ...


class Hits:
    """The share of targets that have the highest logit."""

    def of_batch(self, outputs: Any, targets: Any) -> tuple[Tensor, int] | None:
        """How many targets are right, and of how many; None if the targets are not classes of these outputs."""
        if not isinstance(targets, Tensor) or targets.is_floating_point():
            return None
        logits = primary_output(outputs)
        if logits.ndim < 2 or logits.shape[:1] + logits.shape[2:] != targets.shape:
            return None
        counted = targets.numel() if targets.ndim == 1 else int((targets != IGNORED).sum())
        return (logits.argmax(dim=1) == targets).sum(), counted

    def of_all(self, kept: list[Any]) -> Scored | None:
        """See ``Scorer.of_all``."""
        decided = sum(of for _, of in kept)
        if not decided:
            return None
        accuracy = int(torch.stack([right for right, _ in kept]).sum()) / decided
        return Scored(accuracy, accuracy)


class LabelPrecision:
    """The mean average precision of labels."""

    def of_batch(self, outputs: Any, targets: Any) -> tuple[Tensor, Tensor] | None:
        """Logits and targets, (B, labels)."""
        logits = primary_output(outputs)
        if logits.shape != getattr(targets, "shape", None):
            return None
        return logits.float().cpu(), targets.cpu()

    def of_all(self, kept: list[Any]) -> Scored:
        """See ``Scorer.of_all``."""
        logits, targets = (torch.cat(parts) for parts in zip(*kept, strict=True))
        return Scored(mean_average_precision(logits, targets))
