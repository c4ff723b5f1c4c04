"""Samples that are read and decoded batch by batch, a few batches ahead: in threads, or in processes of their own.

What is drawn at random is drawn before, by the process that asks, so that batches are the same however many read them.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor
from torch.utils import _pytree as pytree
from torch.utils.data import DataLoader, Dataset

from compressor.errors import DataError, UsageError

Sample = TypeVar("Sample")
Draw = tuple[float, ...] | None
"""Random numbers in [0, 1) for one sample; None where nothing is varied."""
_DRAW_STREAM = 0x1F83D9AB  # keeps these numbers apart from those of the order
_MOST_SHARE = 8  # samples of a batch that one thread reads at a time


@dataclass(frozen=True)
class Loading:
    """How samples are read.

    Attributes:
        workers: processes that read; 0 reads in threads of this one, which is as fast where decoding lets them run side
            by side, as that of images does.
        pin: whether batches come in pinned memory, which is copied to a GPU while that computes.
    """

    workers: int = 0
    pin: bool = False

    def __post_init__(self) -> None:
        if isinstance(self.workers, bool) or not isinstance(self.workers, int) or self.workers < 0:
            raise UsageError(f"workers must be a whole number of at least 0, not {self.workers!r}.")


def draws_for(batches: Sequence[Tensor], each: int, seed: int | None) -> list[list[Draw]]:
    """``each`` random numbers for every sample of every batch, by the seed of a pass; None for all without a seed."""
    if seed is None:
        return [[None] * len(batch) for batch in batches]
    generator = torch.Generator().manual_seed(seed ^ _DRAW_STREAM)
    return [[tuple(row) for row in torch.rand(len(batch), each, generator=generator).tolist()] for batch in batches]


def decoded(
    read: Callable[[int, Draw], Sample],
    collate: Callable[[list[Sample]], Any],
    batches: Sequence[Tensor],
    draws: Sequence[Sequence[Draw]],
    loading: Loading,
) -> Iterator[Any]:
    """``collate([read(index, draw), ...])`` of every batch of indices, in order, a few batches ahead.

    With workers ``read`` and ``collate`` run in other processes and are pickled, where these are not forked.

    Raises:
        DataError: as ``read`` does.
    """
    asked = [list(zip(batch.tolist(), drawn, strict=True)) for batch, drawn in zip(batches, draws, strict=True)]
    if loading.workers:
        yield from _by_processes(read, collate, asked, loading)
    else:
        yield from _by_threads(read, collate, asked, loading)


def _by_threads(
    read: Callable[[int, Draw], Sample],
    collate: Callable[[list[Sample]], Any],
    asked: list[list[tuple[int, Draw]]],
    loading: Loading,
) -> Iterator[Any]:
    threads = min(8, os.cpu_count() or 1)

    def share(part: list[tuple[int, Draw]]) -> list[Sample]:
        return [read(*one) for one in part]

    pool = ThreadPoolExecutor(max_workers=threads)
    waiting: deque[list[Future[list[Sample]]]] = deque()
    try:
        for batch in [*asked, None]:
            if batch is not None:
                # Shares and not single samples: handing one over takes as long as opening a small file.
                each = min(_MOST_SHARE, max(1, -(-len(batch) // threads)))
                waiting.append([pool.submit(share, batch[n : n + each]) for n in range(0, len(batch), each)])
            while len(waiting) > (1 if batch is not None else 0):
                found = collate([sample for future in waiting.popleft() for sample in future.result()])
                yield _pinned(found) if loading.pin else found
    finally:
        # Whoever stops early does not wait for samples that nobody will see.
        pool.shutdown(wait=True, cancel_futures=True)


def _by_processes(
    read: Callable[[int, Draw], Sample],
    collate: Callable[[list[Sample]], Any],
    asked: list[list[tuple[int, Draw]]],
    loading: Loading,
) -> Iterator[Any]:
    loader: DataLoader[Any] = DataLoader(
        _Samples(read),
        batch_sampler=asked,
        collate_fn=_Collated(collate),
        num_workers=loading.workers,
        pin_memory=loading.pin,
        generator=torch.Generator().manual_seed(0),  # or the seeds of workers would be drawn from the global one
    )
    for batch in loader:
        if isinstance(batch, _Failed):
            raise DataError(batch.message)
        yield batch


@dataclass(frozen=True)
class _Failed:
    """A ``DataError`` on its way to the process that asked."""

    message: str


class _Samples(Dataset[Any], Generic[Sample]):
    def __init__(self, read: Callable[[int, Draw], Sample]) -> None:
        self._read = read

    def __getitem__(self, asked: Any) -> Sample | _Failed:
        try:
            return self._read(*asked)
        except DataError as error:
            return _Failed(str(error))


class _Collated(Generic[Sample]):
    def __init__(self, collate: Callable[[list[Sample]], Any]) -> None:
        self._collate = collate

    def __call__(self, samples: list[Any]) -> Any:
        failed = next((sample for sample in samples if isinstance(sample, _Failed)), None)
        return self._collate(samples) if failed is None else failed


def _pinned(batch: Any) -> Any:
    return pytree.tree_map(lambda leaf: leaf.pin_memory() if isinstance(leaf, Tensor) else leaf, batch)
