"""A share of a split, another one in every pass: training that looks at less of the data in an epoch."""

from __future__ import annotations

import math
import random
from collections.abc import Iterator
from typing import Any

from compressor.data.base import Split
from compressor.data.batches import sample_count, samples_of
from compressor.errors import UsageError
from compressor.options import shown


class Subsampled:
    """A random share of ``split`` in every pass; implements ``Split``.

    A pass with a seed takes the beginning of the split's own pass with that seed, so each is a uniform draw without
    replacement, the same for the same seed; training gives each epoch a seed of its own. A pass without one takes the
    first samples. A loader that keeps its own order (``own_order``) is gone through, and whole batches of it are drawn:
    then the number of samples is met up to one batch.

    Args:
        split: what is drawn from; it is not copied.
        share: in (0, 1]; a pass has that share of the samples, rounded, and at least one.

    Raises:
        UsageError: ``share`` is out of its range.

    The subsampling of Shen et al., "Efficient Architecture Search for Diverse Tasks", 2022, algorithm 1.
    """

    def __init__(self, split: Split, share: float) -> None:
        number = share if isinstance(share, int | float) and not isinstance(share, bool) else math.nan
        if not 0 < number <= 1:
            raise UsageError(f"share must be above 0 and at most 1, not {shown(share)}.")
        self._split, self._share = split, float(share)

    def __len__(self) -> int:
        whole = len(self._split)
        return min(whole, max(1, round(self._share * whole)))

    @property
    def batch_count(self) -> int:
        """How many batches a pass over a split with batches of its own has, about; others have no such number."""
        whole: int = self._split.batch_count  # type: ignore[attr-defined]
        return max(1, round(self._share * whole))

    def batches(
        self, batch_size: int, *, shuffle_seed: int | None = None, augment: bool = False, drop_last: bool = False
    ) -> Iterator[tuple[Any, Any]]:
        """See ``Split.batches``."""
        source = self._split.batches(batch_size, shuffle_seed=shuffle_seed, augment=augment, drop_last=drop_last)
        if shuffle_seed is not None and getattr(self._split, "own_order", False):
            yield from self._drawn(source, shuffle_seed)
            return
        left = len(self)
        for inputs, targets in source:
            found = sample_count(inputs, targets)
            if found > left:
                if not drop_last:
                    yield samples_of(inputs, 0, left, found), samples_of(targets, 0, left, found)
                return
            yield inputs, targets
            left -= found
            if not left:
                return

    def _drawn(self, source: Iterator[tuple[Any, Any]], seed: int) -> Iterator[tuple[Any, Any]]:
        """Selection sampling (Knuth, The Art of Computer Programming, 3.4.2, algorithm S), batch by batch."""
        draw = random.Random(seed)
        wanted, unseen = len(self), len(self._split)
        for inputs, targets in source:
            if draw.random() * unseen < wanted:
                yield inputs, targets
                wanted -= sample_count(inputs, targets)
                if wanted <= 0:
                    return
            unseen -= sample_count(inputs, targets)
