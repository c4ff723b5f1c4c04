"""How well a network does on a few held-out samples, other ones in every step."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn

from compressor.data import Data
from compressor.nn.inference import Inference
from compressor.train import objective
from compressor.train.layout import copied_to_device
from compressor.train.modes import mode, model_device
from compressor.train.rng import isolated_rng
from compressor.train.splits import call_model, epoch_batches, steps_per_epoch


class HeldOut:
    """Batches of ``data.val`` by the number of a step, the same whenever a run is taken up again.

    Args:
        size: samples in a batch.
        loss_fn: the user's own; default that of the task.
    """

    def __init__(self, data: Data, size: int, seed: int, loss_fn: Callable[[Any, Tensor], Tensor] | None) -> None:
        self._split, self._size, self._seed = data.val, min(size, max(1, len(data.val))), seed
        self._goal = objective(data.task)
        self._loss = loss_fn or self._goal.loss
        self._each = steps_per_epoch(self._split, self._size)
        self._at = -1
        self._batches: Iterator[tuple[Any, Any]] = iter(())

    def batch(self, step: int) -> tuple[Any, Any]:
        """The batch of a step, counted from 0. Draws nothing from the global generators."""
        with isolated_rng():
            if step != self._at + 1 or step % self._each == 0:
                self._batches = epoch_batches(
                    self._split, self._size, seed=self._seed, epoch=step // self._each, augment=False
                )
                for _ in range(step % self._each):
                    next(self._batches)
            self._at = step
            return next(self._batches)

    def score(self, network: nn.Module, step: int) -> float:
        """In [0, 1], more is better: the accuracy for classes, else the logistic function of minus the loss."""
        where = model_device(network)
        inputs, targets = (copied_to_device(each, where) for each in self.batch(step))

        def judged() -> float:
            outputs = call_model(network, copied_to_device(inputs, where))
            kept = self._goal.scorer.of_batch(outputs, targets) if self._goal.scorer is not None else None
            scored = self._goal.scorer.of_all([kept]) if self._goal.scorer is not None and kept is not None else None
            if scored is not None and scored.accuracy is not None:
                return scored.accuracy
            return float(torch.sigmoid(-self._loss(outputs, targets).double()))

        with mode(network, training=False):
            return Inference(network)(judged)
