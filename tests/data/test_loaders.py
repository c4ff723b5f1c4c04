"""The user's own loaders: as deterministic as they can be made, and without touching global generators."""

from __future__ import annotations

import random
from collections.abc import Iterator

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, IterableDataset, TensorDataset, WeightedRandomSampler

from compressor.data import from_loaders, from_tensors
from compressor.errors import DataError


class Noisy(Dataset[tuple[Tensor, int]]):
    """Adds noise from all three global generators, as augmentations do."""

    classes = ("a", "b", "c")

    def __len__(self) -> int:
        return 30

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return index + 0.1 * torch.rand(2) + 0.1 * random.random() + 0.1 * np.random.rand(), index % 3


def run(loader: object, seed: int | None = 3) -> Tensor:
    split = from_loaders(loader, loader).train  # type: ignore[arg-type]
    return torch.cat([x for x, _ in split.batches(4, shuffle_seed=seed, augment=True)])


@pytest.mark.parametrize("kind", ["shuffled", "weighted"])
def test_same_seed_same_batches_and_global_generators_are_left_alone(kind: str) -> None:
    if kind == "shuffled":
        loader = DataLoader(Noisy(), batch_size=5, shuffle=True)
    else:
        loader = DataLoader(Noisy(), batch_size=5, sampler=WeightedRandomSampler([1.0] * 30, 30))
    torch.manual_seed(1)
    one = run(loader)
    torch.manual_seed(2)
    random.seed(2)
    np.random.seed(2)
    before = torch.random.get_rng_state(), random.getstate(), np.random.get_state()[1].tolist()  # type: ignore[index,union-attr]
    two = run(loader)
    after = torch.random.get_rng_state(), random.getstate(), np.random.get_state()[1].tolist()  # type: ignore[index,union-attr]
    assert torch.equal(one, two)
    assert not torch.equal(one, run(loader, seed=4))
    assert torch.equal(before[0], after[0])
    assert before[1:] == after[1:]


def test_batch_size_is_honoured_where_the_loader_can_be_rebuilt() -> None:
    split = from_loaders(DataLoader(Noisy(), batch_size=5, shuffle=True), [(torch.zeros(1, 2), torch.zeros(1))]).train
    assert [len(y) for _, y in split.batches(7)] == [7, 7, 7, 7, 2]
    assert [len(y) for _, y in split.batches(7, drop_last=True)] == [7, 7, 7, 7]
    assert [int(x[0, 0]) for x, _ in split.batches(1)] == list(range(30))


def test_worker_processes_give_the_same_every_time() -> None:
    loader = DataLoader(Noisy(), batch_size=5, shuffle=True, num_workers=1)
    assert torch.equal(run(loader), run(loader))


def test_a_tenth_is_held_out_stratified() -> None:
    targets = torch.arange(60) % 3
    data = from_loaders(DataLoader(TensorDataset(torch.arange(60.0)[:, None], targets), batch_size=8, shuffle=True))
    train = torch.cat([x for x, _ in data.train.batches(8)]).flatten()
    val = torch.cat([x for x, _ in data.val.batches(8)]).flatten()
    assert sorted([*train.tolist(), *val.tolist()]) == list(range(60))
    assert torch.bincount((val % 3).long()).tolist() == [2, 2, 2]
    assert data.num_classes == 3


def test_lists_of_batches() -> None:
    batches = [(torch.full((4, 2), float(i)), torch.full((4,), i)) for i in range(20)]
    data = from_loaders(batches, test=batches[:1])
    assert (len(data.train), len(data.val)) == (72, 8)
    assert {float(x[0, 0]) for x, _ in data.val.batches(99)} == {9.0, 19.0}
    assert data.example_inputs.shape == (1, 2)
    few = from_loaders(batches[:3])
    assert (len(few.train), len(few.val)) == (8, 4)


class Stream(IterableDataset[tuple[Tensor, int]]):
    def __iter__(self) -> Iterator[tuple[Tensor, int]]:
        yield from ((torch.full((2,), float(i)), i % 2) for i in range(12))


def test_streams_keep_their_own_batches() -> None:
    data = from_loaders(DataLoader(Stream(), batch_size=4), DataLoader(Stream(), batch_size=6))
    assert [len(y) for _, y in data.train.batches(99)] == [4, 4, 4]
    assert data.num_classes is None
    assert len(data.val) == 12


def test_splits_pass_through() -> None:
    own = from_tensors((torch.rand(20, 2), torch.arange(20) % 2))
    data = from_loaders(own.train, own.val)
    assert data.train is own.train


@pytest.mark.parametrize(
    ("loader", "named"),
    [
        (iter([(torch.zeros(1), torch.zeros(1))]), "only once"),
        ([], "no batches"),
        ([torch.zeros(3)], "without targets"),
        ([(torch.zeros(3), ["a", "b", "c"])], "loss_fn"),
        (3, "DataLoader"),
    ],
)
def test_unusable_loaders(loader: object, named: str) -> None:
    good = [(torch.zeros(1, 2), torch.zeros(1))]
    with pytest.raises(DataError, match=named):
        from_loaders(loader, good)  # type: ignore[arg-type]
