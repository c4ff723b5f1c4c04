"""A share of a split: how many samples, which ones, and that training takes it for any other split."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor

from compressor.data import Split, Subsampled, TensorSplit
from compressor.data.loaders import IterableSplit
from compressor.errors import UsageError
from compressor.train.splits import epoch_batches, steps_per_epoch

WHOLE = TensorSplit(torch.arange(50.0)[:, None], torch.arange(50))


def taken(batches: Iterator[tuple[Tensor, Tensor]]) -> list[int]:
    found = []
    for inputs, targets in batches:
        assert torch.equal(inputs[:, 0].long(), targets), "inputs and targets are cut alike"
        found += targets.tolist()
    return found


@pytest.mark.parametrize(("share", "count"), [(1.0, 50), (1, 50), (0.2, 10), (0.3, 15), (0.001, 1), (0.999, 50)])
@pytest.mark.parametrize("seed", [None, 3])
def test_a_pass_has_as_many_samples_as_it_says(share: float, count: int, seed: int | None) -> None:
    split = Subsampled(WHOLE, share)
    assert isinstance(split, Split)
    assert len(split) == count
    found = taken(split.batches(4, shuffle_seed=seed))
    assert len(found) == len(set(found)) == count
    full = split.batches(4, shuffle_seed=seed, drop_last=True)
    assert [len(targets) for _, targets in full] == [4] * (count // 4)


def test_epochs_draw_other_shares_and_the_same_epoch_the_same() -> None:
    split = Subsampled(WHOLE, 0.2)
    assert steps_per_epoch(split, 4) == 2
    epochs = [taken(epoch_batches(split, 4, seed=1, epoch=epoch, augment=False)) for epoch in range(40)]
    assert all(len(set(epoch)) == 8 for epoch in epochs)
    assert epochs[5] == taken(epoch_batches(split, 4, seed=1, epoch=5, augment=False))
    assert epochs[5] != taken(epoch_batches(split, 4, seed=2, epoch=5, augment=False))
    assert len({tuple(sorted(epoch)) for epoch in epochs}) == 40
    assert set().union(*epochs) == set(range(50)), "every sample has its turn"


def test_a_share_smaller_than_a_batch_is_one_smaller_batch() -> None:
    batches = list(epoch_batches(Subsampled(WHOLE, 0.1), 16, seed=0, epoch=0, augment=False))
    assert [len(targets) for _, targets in batches] == [5]


def test_without_a_seed_it_is_the_beginning() -> None:
    assert taken(Subsampled(WHOLE, 0.2).batches(4)) == list(range(10))


def test_of_a_loader_in_its_own_order_batches_are_drawn() -> None:
    rows = torch.arange(40).split(4)
    split = Subsampled(IterableSplit([(row[:, None].float(), row) for row in rows]), 0.25)
    assert len(split) == 10
    passes = [taken(split.batches(4, shuffle_seed=seed)) for seed in range(20)]
    assert all(len(each) == len(set(each)) and len(each) in (8, 12) for each in passes), "whole batches"
    assert len({each[0] for each in passes}) > 1
    assert taken(split.batches(4, shuffle_seed=7)) == passes[7]


def test_nested_inputs_are_cut_and_what_has_no_samples_is_not() -> None:
    class Nested:
        def __len__(self) -> int:
            return 6

        def batches(self, batch_size: int, **_: object) -> Iterator[tuple[dict[str, object], Tensor]]:
            yield {"a": torch.ones(6, 2), "table": torch.ones(3), "none": None}, torch.arange(6)

    ((inputs, targets),) = Subsampled(Nested(), 0.5).batches(6)
    assert len(targets) == 3
    assert [inputs["a"].shape, inputs["table"].shape, inputs["none"]] == [(3, 2), (3,), None]


@pytest.mark.parametrize("share", [0, 0.0, -0.5, 1.5, float("nan"), True, "0.5", None])
def test_bad_shares_are_refused(share: object) -> None:
    with pytest.raises(UsageError, match="share"):
        Subsampled(WHOLE, share)  # type: ignore[arg-type]
