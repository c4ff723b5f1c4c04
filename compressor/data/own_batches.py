"""Splits whose batches are made elsewhere, in sizes and an order of their own."""

from __future__ import annotations

import logging
import time
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from typing import Any

from compressor.data.batches import sample_count

logger = logging.getLogger(__name__)

Batch = tuple[Any, Any]
_PATIENCE_S = 30.0


class OwnBatches(ABC):
    """Implements ``Split`` but for the batch size, which is that of whoever makes the batches."""

    own_order = True
    """A pass's seed does not say which batches come first."""

    def __init__(self) -> None:
        self._counts: tuple[int, int] | None = None

    @abstractmethod
    def one_pass(self, seed: int | None, *, augment: bool) -> Iterator[Batch]:
        """All batches, inputs and targets."""

    def __len__(self) -> int:
        return self._counted()[0]

    @property
    def batch_count(self) -> int:
        """How many batches a pass has that are full: a last one that is smaller than the first is none."""
        return self._counted()[1]

    def batches(
        self, batch_size: int, *, shuffle_seed: int | None = None, augment: bool = False, drop_last: bool = False
    ) -> Iterator[Batch]:
        """See ``Split.batches``; batch size, order and augmentation are the maker's own."""
        found = self.one_pass(shuffle_seed, augment=augment)
        yield from _full(found) if drop_last else found

    def _counted(self) -> tuple[int, int]:
        if self._counts is None:
            sizes = [sample_count(*batch) for batch in told_of(self.one_pass(None, augment=False))]
            smaller = len(sizes) > 1 and sizes[-1] < sizes[0]
            self._counts = sum(sizes), len(sizes) - smaller
        return self._counts


def _full(batches: Iterator[Batch]) -> Iterator[Batch]:
    """Without the last batch if it is smaller than the first, which would weigh more than others."""
    before: Batch | None = None
    least = 0
    for batch in batches:
        if before is None:
            least = sample_count(*batch)
        else:
            yield before
        before = batch
    if before is not None and sample_count(*before) >= least:
        yield before


def told_of(batches: Iterable[Any]) -> Iterator[Any]:
    """The same batches, which are counted; where that takes long it is said, as a stream that never ends keeps it up
    for ever."""
    since: float | None = time.monotonic()
    for number, batch in enumerate(batches):
        if since is not None and time.monotonic() - since >= _PATIENCE_S:
            logger.warning(
                "Batches of the data are being counted, %s so far. A stream that repeats itself never ends: give it an "
                "end (itertools.islice), where an epoch is to end.",
                f"{number:,}",
            )
            since = None
        yield batch
