"""Samples held out of a training split that has been made already."""

from __future__ import annotations

from collections.abc import Iterator

from compressor.data.base import Split
from compressor.data.holdout import HOLDOUT_FRACTION, stratified_holdout
from compressor.data.loaders import DatasetSplit
from compressor.data.memory import TensorSplit
from compressor.data.own_batches import Batch, OwnBatches
from compressor.errors import DataError

_ORDER = 0x5EED  # of the passes that both parts of a split without indices are made of


def hold_out(split: Split, batch_size: int) -> tuple[Split, Split]:
    """What to train on and a tenth held out, the same every time and without a sample in common.

    Where a split has indices the classes keep their shares. Any other is gone through in one order, and every tenth
    batch is held out; what is trained on then keeps that order.

    Args:
        batch_size: samples in a batch of such a pass, as far as the split lets one choose.

    Raises:
        DataError: there is too little to hold something out.
    """
    if isinstance(split, (TensorSplit, DatasetSplit)):
        kept, held = stratified_holdout(split.labels)
        return split.subset(kept), split.subset(held)
    every = round(1 / HOLDOUT_FRACTION)
    size = max(1, min(batch_size, len(split) // every))
    parts = _Part(split, size, every, held_out=False), _Part(split, size, every, held_out=True)
    if not all(len(part) for part in parts):
        raise DataError(
            "The training data has too few batches to hold one out; pass data with a test split, then nothing is "
            "held out."
        )
    return parts


class _Part(OwnBatches):
    """Every n-th batch of one pass, or all others."""

    def __init__(self, split: Split, size: int, every: int, *, held_out: bool) -> None:
        super().__init__()
        self._split, self._size, self._every, self._held_out = split, size, every, held_out

    def one_pass(self, seed: int | None, *, augment: bool) -> Iterator[Batch]:
        """Always the same batches in the same order, or samples would change parts."""
        for number, batch in enumerate(self._split.batches(self._size, shuffle_seed=_ORDER, augment=augment)):
            if (number % self._every == 0) == self._held_out:
                yield batch
