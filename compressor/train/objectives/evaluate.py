"""Loss and score of a model on a split."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import partial
from itertools import islice, zip_longest
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from compressor.data.base import Split, usual_batch
from compressor.data.batches import sample_count
from compressor.data.task import Task
from compressor.errors import DataError
from compressor.nn.inference import Inference
from compressor.process.ranks import Ranks, current
from compressor.train.layout import accepts_channels_last, channels_last, copied_to_device
from compressor.train.modes import deterministic, mode, model_device
from compressor.train.objectives.losses import LossFn
from compressor.train.objectives.objective import LOSS, TOP_1, Metric, objective
from compressor.train.rng import isolated_rng
from compressor.train.splits import Forward, call_model


@dataclass(frozen=True)
class Metrics:
    """What an evaluation found."""

    accuracy: float | None
    """Fraction of targets that have the highest logit; None if the targets are not class indices."""
    loss: float | None
    """Mean over samples; None where the model computes it in training mode alone."""
    count: int
    """Samples seen."""
    score: float | None = None
    """What ``metric`` says: the accuracy, a precision, an error, or the loss where there is nothing better; None for
    NaN, or where there is none."""
    metric: Metric = TOP_1

    @property
    def lost(self) -> bool:
        """Whether nothing can be said for the model: NaN outputs have an accuracy, too, that of a guess."""
        bad_score = self.score is None or not math.isfinite(self.score)
        return bad_score or (self.loss is not None and math.isnan(self.loss))


@dataclass(frozen=True)
class _Batch:
    """What was found on one batch."""

    loss: Tensor | None
    count: int
    kept: Any | None
    """See ``Scorer.of_batch``."""

    def told(self) -> _Batch:
        """The same, in the CPU's memory."""
        kept = pytree.tree_map(lambda leaf: leaf.cpu() if isinstance(leaf, Tensor) else leaf, self.kept)
        return _Batch(None if self.loss is None else self.loss.cpu(), self.count, kept)


def _in_order(mine: list[_Batch], ranks: Ranks) -> list[_Batch]:
    """What all processes found, as one would have found it."""
    if ranks.size == 1:
        return mine
    every = ranks.gather([batch.told() for batch in mine])
    return [found for turn in zip_longest(*every) for found in turn if found is not None]


def evaluate(
    model: nn.Module,
    split: Split,
    batch_size: int | None = None,
    device: torch.device | None = None,
    *,
    loss_fn: LossFn | None = None,
    task: Task | None = None,
    forward: Forward = call_model,
) -> Metrics:
    """Run the model over the split in evaluation mode; the modes it had come back.

    Processes that work together take turns with the batches, and all get what one would find.

    Args:
        batch_size: 256 if not given, on the CPU 64, where larger ones fall out of its caches; fewer where the split
            asks for it (``usual_batch``).
        device: where the model is; found out if not given.
        loss_fn: ``loss_fn(outputs, targets)``; the task's own if not given.
        task: what is to be predicted, as ``Data.task`` says; classification if not given. For pixels with classes of
            their own the accuracy is that of pixels.
        forward: how the model is run, ``forward(model, inputs)``; for instance with masks.

    Raises:
        DataError: the split is empty, or the targets do not fit the model's outputs.
    """
    where = device or model_device(model)
    size = batch_size or usual_batch(split, 64 if where.type == "cpu" else 256)
    goal = objective(task)
    loss_of = loss_fn or (None if goal.model_loss else goal.loss)
    ranks = current()
    images_last: bool | None = None
    found: list[_Batch] = []
    inference = Inference(model)

    def judged(inputs: Any, targets: Any) -> tuple[Tensor | None, Any | None]:
        moved, given = copied_to_device(targets, where), copied_to_device(inputs, where)
        outputs = forward(model, channels_last(given) if images_last else given)
        if loss_fn is None and not found:
            goal.check(outputs, moved)
        kept = goal.scorer.of_batch(outputs, moved) if goal.scorer is not None else None
        return None if loss_of is None else loss_of(outputs, moved), kept

    with isolated_rng() as give_way, deterministic(where), mode(model, training=False), torch.no_grad():
        for inputs, targets in islice(split.batches(size), ranks.rank, None, ranks.size):
            give_way()
            if images_last is None:
                images_last = accepts_channels_last(model, copied_to_device(inputs, where), forward)
            loss_here, kept = inference(partial(judged, inputs, targets))
            found.append(_Batch(loss_here, sample_count(inputs, targets), kept))
    found = _in_order(found, ranks)
    if not found:
        raise DataError("The split to evaluate on is empty; give data with at least one sample.")
    count = sum(batch.count for batch in found)
    losses = [batch.loss for batch in found if batch.loss is not None]
    weights = torch.tensor([batch.count for batch in found], dtype=torch.float64)
    loss = float((torch.stack(losses).double().cpu() * weights).sum() / weights.sum()) if losses else None
    kept = [batch.kept for batch in found if batch.kept is not None]
    scored = goal.scorer.of_all(kept) if goal.scorer is not None and kept else None
    if scored is not None:
        return Metrics(scored.accuracy, loss, count, scored.score, goal.metric)
    named = goal.metric if loss_fn is None and goal.scorer is None else LOSS
    return Metrics(None, loss, count, loss if loss is not None and math.isfinite(loss) else None, named)
