"""What is held out of a training split: never a sample in common, none lost, and always the same ones."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils.data import DataLoader, TensorDataset

from compressor.data import Split, Subsampled, TensorSplit
from compressor.data.apart import hold_out
from compressor.data.loaders import DatasetSplit, IterableSplit
from compressor.errors import DataError
from compressor.train.splits import epoch_batches

INPUTS, TARGETS = torch.arange(100.0)[:, None], torch.arange(100) % 5


class Plain:
    """A split of somebody else's."""

    def __len__(self) -> int:
        return len(INPUTS)

    def batches(self, batch_size: int, *, shuffle_seed: int | None = None, **_: Any) -> Iterator[tuple[Tensor, Tensor]]:
        order = torch.arange(len(self))
        if shuffle_seed is not None:
            order = torch.randperm(len(self), generator=torch.Generator().manual_seed(shuffle_seed))
        for part in order.split(batch_size):
            yield INPUTS[part], TARGETS[part]


def splits() -> list[Split]:
    loader = DataLoader(TensorDataset(INPUTS, TARGETS), batch_size=7)
    rows = list(zip(INPUTS.split(10), TARGETS.split(10), strict=True))
    return [TensorSplit(INPUTS, TARGETS), DatasetSplit(loader), IterableSplit(rows), Plain()]


def seen(batches: Iterator[tuple[Tensor, Tensor]]) -> list[int]:
    return [int(x) for inputs, _ in batches for x in inputs[:, 0]]


@pytest.mark.parametrize("kind", range(4))
def test_the_parts_are_disjoint_and_together_everything(kind: int) -> None:
    train, held = hold_out(splits()[kind], 10)
    apart = seen(held.batches(64))
    assert len(apart) == len(set(apart)) == len(held)
    assert 5 <= len(held) <= 20
    for seed, size in ((None, 3), (1, 8), (2, 64)):
        left = seen(train.batches(size, shuffle_seed=seed))
        assert len(left) == len(train)
        assert sorted(left + apart) == list(range(100))
        assert seen(held.batches(size, shuffle_seed=seed)) == apart or kind < 2
    assert seen(hold_out(splits()[kind], 10)[1].batches(64)) == apart


@pytest.mark.parametrize("kind", range(2))
def test_classes_keep_their_shares(kind: int) -> None:
    _, held = hold_out(splits()[kind], 10)
    targets = torch.cat([targets for _, targets in held.batches(64)])
    assert torch.bincount(targets).tolist() == [2] * 5


@pytest.mark.parametrize("kind", range(4))
def test_shares_of_what_is_left_never_meet_what_is_held_out(kind: int) -> None:
    train, held = hold_out(splits()[kind], 10)
    share, apart = Subsampled(train, 0.3), set(seen(held.batches(64)))
    epochs = [set(seen(epoch_batches(share, 5, seed=0, epoch=epoch, augment=True))) for epoch in range(5)]
    assert not apart & set().union(*epochs)
    assert len({tuple(sorted(epoch)) for epoch in epochs}) > 1


@pytest.mark.parametrize(
    "split",
    [TensorSplit(INPUTS[:1], TARGETS[:1]), IterableSplit([(INPUTS, TARGETS)]), TensorSplit(INPUTS[:0], TARGETS[:0])],
)
def test_too_little_is_said(split: Split) -> None:
    with pytest.raises(DataError):
        hold_out(split, 4)
