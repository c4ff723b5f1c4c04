"""Loaders that make batches of their own: an epoch is one pass, whatever the size of the batches."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils.data import BatchSampler, DataLoader, IterableDataset, RandomSampler, TensorDataset
from torch.utils.data.distributed import DistributedSampler

from compressor.data import from_loaders, own_batches
from compressor.data.apart import hold_out
from compressor.data.base import first_batch
from compressor.data.loaders import DatasetSplit, IterableSplit, batch_size_of
from compressor.data.subsampled import Subsampled
from compressor.errors import DataError
from compressor.train.parts import epoch_steps
from compressor.train.splits import epoch_batches, steps_per_epoch

SAMPLES = TensorDataset(torch.arange(96.0)[:, None], torch.arange(96) % 2)


class Stream(IterableDataset[tuple[Tensor, Tensor]]):
    def __init__(self, count: int = 96) -> None:
        self.count = count

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        yield from (SAMPLES[i] for i in range(self.count))


def loaders(size: int) -> dict[str, Any]:
    return {
        "list": list(DataLoader(SAMPLES, batch_size=size)),
        "stream": DataLoader(Stream(), batch_size=size),
        "batch sampler": DataLoader(SAMPLES, batch_sampler=BatchSampler(RandomSampler(SAMPLES), size, drop_last=False)),
    }


@pytest.mark.parametrize("asked", [1, 32, 1000])
@pytest.mark.parametrize("size", [1, 7, 32, 90, 96, 200])
@pytest.mark.parametrize("kind", ["list", "stream", "batch sampler"])
def test_an_epoch_is_one_pass(kind: str, size: int, asked: int) -> None:
    split = IterableSplit(loaders(size)[kind])
    steps = list(epoch_steps(split, asked, 1, seed=0, epoch=0, augment=True))
    assert len(steps) == steps_per_epoch(split, asked) == max(1, 96 // size)
    seen = Counter(torch.cat([x for ((x, _),) in steps]).flatten().tolist())
    assert len(seen) == 96 - 96 % size if size < 96 else 96
    assert set(seen.values()) == {1}
    assert {len(y) for ((_, y),) in steps} == {min(size, 96)}, "a smaller last batch is left out"
    assert sum(len(y) for _, y in split.batches(asked)) == len(split) == 96, "but not of what is measured"


@pytest.mark.parametrize("accumulate", [2, 3, 20])
def test_accumulated_batches_are_those_of_one_pass(accumulate: int) -> None:
    split = IterableSplit(loaders(8)["list"])
    steps = list(epoch_steps(split, 64, accumulate, seed=0, epoch=0, augment=True))
    assert len(steps) == steps_per_epoch(split, 64, accumulate) == max(1, 12 // accumulate)
    assert {len(step) for step in steps} == {accumulate}


def test_what_is_taken_of_a_loader_counts_its_batches() -> None:
    kept, held = hold_out(IterableSplit(loaders(4)["list"]), 4)
    assert (steps_per_epoch(kept, 64), steps_per_epoch(held, 64)) == (21, 3)
    assert steps_per_epoch(Subsampled(IterableSplit(loaders(4)["list"]), 0.5), 64) == 12
    assert steps_per_epoch(Subsampled(DatasetSplit(DataLoader(SAMPLES)), 0.5), 8) == 6


@pytest.mark.parametrize("batches", [2, 3, 24])
def test_a_stream_that_does_not_know_its_length_gives_a_part_away(batches: int) -> None:
    data = from_loaders(DataLoader(Stream(4 * batches), batch_size=4))
    assert len(data.train) + len(data.val) == 4 * batches
    assert len(data.val) == max(1, batches // 10) * 4


@pytest.mark.parametrize("loader", [DataLoader(Stream(3), batch_size=4), [], [SAMPLES[:4]]])
def test_of_one_batch_none_is_held_out(loader: Any) -> None:
    with pytest.raises(DataError, match=r"has (1 batch|no batches), of which none can be held out; pass val"):
        from_loaders(loader)


@pytest.mark.parametrize(
    ("sampler", "rebuilt"),
    [
        (RandomSampler(SAMPLES), True),
        (RandomSampler(SAMPLES, num_samples=96), True),
        (RandomSampler(SAMPLES, num_samples=40), False),
        (RandomSampler(SAMPLES, replacement=True), False),
        (RandomSampler(SAMPLES, replacement=True, num_samples=400), False),
    ],
)
def test_what_a_sampler_was_told_holds(sampler: RandomSampler, rebuilt: bool) -> None:
    split = from_loaders(DataLoader(SAMPLES, batch_size=8, sampler=sampler), [SAMPLES[:4]]).train
    assert isinstance(split, DatasetSplit) == rebuilt
    assert len(split) == sampler.num_samples


def test_the_batch_size_of_what_is_passed() -> None:
    loader = DataLoader(SAMPLES, batch_size=24, shuffle=True)
    own = DataLoader(SAMPLES, batch_sampler=BatchSampler(RandomSampler(SAMPLES), 5, drop_last=False))
    assert [batch_size_of(data) for data in (loader, (loader, own), {"train": loader})] == [24] * 3
    assert [batch_size_of(data) for data in (own, (own, loader), [SAMPLES[:4]], None, SAMPLES)] == [None] * 5
    shared = DataLoader(SAMPLES, batch_size=24, sampler=DistributedSampler(SAMPLES, num_replicas=2, rank=0))
    assert batch_size_of(shared) == 48


def test_samples_are_no_batches() -> None:
    with pytest.raises(DataError, match="give the DataLoader a batch_size"):
        from_loaders(DataLoader(SAMPLES, batch_size=None), [SAMPLES[:4]])


class Drained:
    """Batches in the first two passes; ``left`` in those after."""

    def __init__(self, left: int) -> None:
        self.left, self.passes = left, 0

    def __len__(self) -> int:
        raise RuntimeError("nobody knows")

    def __iter__(self) -> Any:
        self.passes += 1
        return iter([SAMPLES[:4]] * (6 if self.passes < 3 else self.left))


def test_batches_that_are_gone_in_a_later_pass_are_missed() -> None:
    split = from_loaders(Drained(0), [SAMPLES[:4]]).train
    assert len(list(split.batches(4))) == 6
    with pytest.raises(DataError, match="The batches of a Drained were there once, and there are none"):
        first_batch(split, 4, "training")
    with pytest.raises(DataError, match="The training data has no batches"):
        first_batch(IterableSplit([]), 4, "training")
    fewer = from_loaders(Drained(5), [SAMPLES[:4]]).train
    batches = epoch_batches(fewer, 4, seed=0, epoch=0, augment=False)
    assert len(list(batches)) == 6
    assert len(from_loaders(Drained(6)).train) == 20, "a length that raises is counted"


def test_a_count_that_takes_long_is_said_once(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(own_batches, "_PATIENCE_S", 0.0)
    with caplog.at_level(logging.WARNING):
        assert len(IterableSplit(loaders(4)["list"])) == 96
    (said,) = [record.getMessage() for record in caplog.records]
    assert "A stream that repeats itself never ends" in said
