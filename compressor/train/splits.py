"""The little that training needs to know of data."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import islice
from typing import Any, Protocol

import torch
from torch import Tensor

from compressor.data.base import Split
from compressor.data.task import Task
from compressor.errors import DataError
from compressor.train.rng import derive_seed


class TrainData(Protocol):
    """A training split and one to evaluate on."""

    @property
    def train(self) -> Split: ...

    @property
    def val(self) -> Split: ...


def task_of(data: TrainData) -> Task | None:
    """What ``data`` says is to be predicted, if it says so."""
    found: Task | None = getattr(data, "task", None)
    return found


def steps_per_epoch(split: Split, batch_size: int, accumulate: int = 1) -> int:
    """Steps of ``accumulate`` full batches in one pass, or one smaller step if there are too few samples for that.

    A split with batches of its own counts these (``batch_count``), whatever ``batch_size`` says.

    Raises:
        DataError: the split is empty.
    """
    if len(split) == 0:
        raise DataError("The training split is empty; give data with at least one sample.")
    own: int | None = getattr(split, "batch_count", None)
    return max(1, len(split) // (batch_size * accumulate) if own is None else own // accumulate)


def epoch_batches(
    split: Split, batch_size: int, *, seed: int, epoch: int, augment: bool, count: int | None = None
) -> Iterator[tuple[Tensor, Tensor]]:
    """Exactly ``count`` batches, by default ``steps_per_epoch``, in an order that depends on ``seed`` and ``epoch``.

    A split that ends early (its length was an estimate) is gone through again in another order.
    Raises ``DataError`` if it yields nothing at all.
    """
    left = steps_per_epoch(split, batch_size) if count is None else count
    # A smaller last batch would weigh more, and one of one breaks BatchNorm.
    drop_last = hasattr(split, "batch_count") or len(split) >= batch_size
    again = 0
    while left:
        order = derive_seed(seed, "order", epoch, again)
        source = split.batches(batch_size, shuffle_seed=order, augment=augment, drop_last=drop_last)
        taken = 0
        for batch in islice(source, left):
            taken += 1
            yield batch
        if not taken:
            raise DataError("The training split yielded no batch; check that it can be gone through more than once.")
        left -= taken
        again += 1


Forward = Callable[[torch.nn.Module, Any], Any]
"""``forward(model, inputs)``: how a model is run."""


def call_model(model: torch.nn.Module, inputs: Any) -> Any:
    """The forward pass: a tuple or list is several arguments, a dict is keyword arguments."""
    if isinstance(inputs, dict):
        return model(**inputs)
    if isinstance(inputs, list | tuple):
        return model(*inputs)
    return model(inputs)
