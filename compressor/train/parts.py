"""How the samples of a step are shared: among processes, and among the parts that one works on after the other.

A loss is a mean. That of a step is the sum of those of its parts, each times its share of what the mean goes over, and
so are the gradients.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice, pairwise
from typing import Any

from compressor.data.base import Split
from compressor.data.batches import sample_count, samples_of
from compressor.errors import DataError
from compressor.process.ranks import Ranks
from compressor.train.splits import epoch_batches, steps_per_epoch

Batch = tuple[Any, Any]
"""Inputs and targets."""


@dataclass(frozen=True)
class Part:
    """What one process works on at once. ``share`` is its weight in the loss of the step; those of a step, of all
    processes, add up to 1."""

    inputs: Any
    targets: Any
    share: float = 1.0


def epoch_steps(
    split: Split, batch_size: int, accumulate: int, *, seed: int, epoch: int, augment: bool
) -> Iterator[list[Batch]]:
    """The batches of each step of an epoch, the same in every process; ``accumulate`` of them make one step.

    A split that makes batches of any size makes one for the whole step, which is cut: samples and augmentation are
    those of a batch that is so much larger. One with batches of its own gives these.

    Raises:
        DataError: the split is empty.
    """
    steps, whole = steps_per_epoch(split, batch_size, accumulate), batch_size * accumulate
    told: dict[str, Any] = {"seed": seed, "epoch": epoch, "augment": augment}
    if accumulate == 1:
        yield from ([batch] for batch in epoch_batches(split, batch_size, **told))
    elif getattr(split, "own_order", False):
        batches = epoch_batches(split, batch_size, count=steps * accumulate, **told)
        yield from (list(islice(batches, accumulate)) for _ in range(steps))
    else:
        yield from (_cut(batch, batch_size) for batch in epoch_batches(split, whole, **told))


def _cut(batch: Batch, most: int) -> list[Batch]:
    count = sample_count(*batch)
    pieces = -(-count // most)
    edges = [piece * count // pieces for piece in range(pieces + 1)]
    return [_samples(batch, a, b, count) for a, b in pairwise(edges)]


def parts_of(step: Sequence[Batch], ranks: Ranks, mean_over: Callable[[Any, Any], int] = sample_count) -> list[Part]:
    """What this process works on: its part of each batch of a step.

    Args:
        mean_over: how many things the loss of inputs and targets is a mean over.

    Raises:
        DataError: a batch has fewer samples than there are processes.
    """
    if ranks.size == 1 and len(step) == 1:
        return [Part(*step[0])]
    whole = max(1, sum(mean_over(*batch) for batch in step))
    found = []
    for batch in step:
        mine = part_of(batch, ranks)
        found.append(Part(*mine, share=mean_over(*mine) / whole))
    return found


def part_of(batch: Batch, ranks: Ranks) -> Batch:
    """The samples of a batch that this process works on. Raises ``DataError`` if there is none for some process."""
    if ranks.size == 1:
        return batch
    count, rank, size = sample_count(*batch), ranks.rank, ranks.size
    if count < size:
        raise DataError(
            f"A batch of {count} sample{'s' * (count != 1)} cannot be shared by {size} processes; give batches of at "
            f"least {size} samples (--batch-size), or leave out the rest of the data set (drop_last), or start fewer "
            "processes."
        )
    return _samples(batch, rank * count // size, (rank + 1) * count // size, count)


def _samples(batch: Batch, start: int, stop: int, count: int) -> Batch:
    inputs, targets = (samples_of(values, start, stop, count) for values in batch)
    return inputs, targets
