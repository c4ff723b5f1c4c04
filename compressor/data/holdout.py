"""A validation split taken off the training set, the same every time."""

from __future__ import annotations

import torch
from torch import Tensor

from compressor.errors import DataError

HOLDOUT_FRACTION = 0.1
_SEED = 0  # fixed, so that runs with different seeds are compared on the same samples


def stratified_holdout(targets: Tensor, fraction: float = HOLDOUT_FRACTION) -> tuple[Tensor, Tensor]:
    """Split sample indices, keeping the share of each class.

    Each class gives its share rounded down; what is missing to the total comes from the classes with the largest
    remainders, so that classes too small to give a sample alone still give some together.

    Args:
        targets: (N,) integer classes; other targets are split without regard to their values.

    Returns:
        Indices to keep and indices held out, each sorted, together all N.

    Raises:
        DataError: fewer than two samples.
    """
    count = len(targets)
    if count < 2:
        raise DataError(f"Cannot take a validation split off {count} training samples; give at least two, or a split.")
    held = min(max(1, round(count * fraction)), count - 1)
    generator = torch.Generator().manual_seed(_SEED)
    order = torch.randperm(count, generator=generator)
    if targets.dim() != 1 or targets.is_floating_point():
        return order[held:].sort().values, order[:held].sort().values
    _, inverse, sizes = torch.unique(targets, return_inverse=True, return_counts=True)
    share = sizes.double() * (held / count)
    quota = share.floor().long()
    # Ties between remainders are broken at random, but always the same way.
    tie = torch.rand(len(sizes), generator=generator, dtype=torch.float64) * 1e-6
    largest = (share - quota + tie).argsort(descending=True)
    quota[largest[: held - int(quota.sum())]] += 1
    # Rank of each sample among its class, in random order: those below the quota are held out.
    by_class = order[inverse[order].argsort(stable=True)]
    start = torch.repeat_interleave(sizes.cumsum(0) - sizes, sizes)
    rank = torch.arange(count) - start
    out = rank < quota[inverse[by_class]]
    return by_class[~out].sort().values, by_class[out].sort().values
