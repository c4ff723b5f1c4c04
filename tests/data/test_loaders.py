"""The user's own loaders: as deterministic as they can be made, and without touching global generators."""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, IterableDataset, TensorDataset, WeightedRandomSampler

from compressor.data import from_loaders, from_tensors
from compressor.errors import DataError
from compressor.train.objectives.losses import check_classes, cross_entropy


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
        ([(torch.zeros(3), torch.zeros(3, dtype=torch.complex64))], "complex"),
    ],
)
def test_unusable_loaders(loader: object, named: str) -> None:
    good = [(torch.zeros(1, 2), torch.zeros(1))]
    with pytest.raises(DataError, match=named):
        from_loaders(loader, good)  # type: ignore[arg-type]


class Raises(Dataset[Any]):
    """Sample 5 cannot be had."""

    def __init__(self, error: BaseException) -> None:
        self.error = error

    def __len__(self) -> int:
        return 8

    def __getitem__(self, index: int) -> Any:
        if index == 5:
            raise self.error
        return torch.zeros(3), 0


class Ragged(Raises):
    def __getitem__(self, index: int) -> Any:
        return torch.zeros(3 + index), 0


class Unsized(Dataset[Any]):
    def __getitem__(self, index: int) -> Any:
        return torch.zeros(3), 0


class Gone:
    def __iter__(self) -> Any:
        yield torch.zeros(2, 3), torch.zeros(2).long()
        raise OSError("the disk is gone")


@pytest.mark.parametrize(
    ("made", "said"),
    [
        (lambda: DataLoader(Raises(ZeroDivisionError("by\nzero")), batch_size=2), "ZeroDivisionError: by"),
        (lambda: DataLoader(Raises(KeyError("a")), batch_size=2, num_workers=1), "KeyError: 'a'"),
        (lambda: DataLoader(Ragged(KeyError()), batch_size=2), "RuntimeError: stack expects each tensor"),
        (lambda: DataLoader(Unsized(), batch_size=2), "TypeError: object of type 'Unsized' has no len"),
        (Gone, "OSError: the disk is gone"),
    ],
)
def test_what_a_loader_raises_is_said_in_a_line(made: Any, said: str) -> None:
    good = [(torch.zeros(2, 3), torch.zeros(2).long())]
    with pytest.raises(DataError) as caught:
        list(from_loaders(made(), good).train.batches(2))
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)
    assert caught.value.__cause__ is not None


@pytest.mark.parametrize("error", [MemoryError(), torch.OutOfMemoryError(), DataError("own"), KeyboardInterrupt()])
def test_what_is_no_fault_of_a_loader_stays_what_it_is(error: BaseException) -> None:
    with pytest.raises(type(error)) as caught:
        from_loaders(DataLoader(Raises(error), batch_size=2), [(torch.zeros(2, 3), torch.zeros(2).long())])
    assert caught.value is error


@pytest.mark.parametrize("kind", [torch.uint16, torch.uint32, torch.uint64, torch.uint8, torch.int8, torch.int16])
def test_classes_of_any_width(kind: torch.dtype) -> None:
    x, y = torch.rand(6, 2), torch.tensor([0, 2, 1, 0, 2, 1]).to(kind)
    for data in (from_loaders([(x, y)], [(x, y)]), from_tensors((x, y), (x, y))):
        _, targets = next(data.val.batches(6))
        check_classes(torch.zeros(6, 3), targets)
        assert cross_entropy()(torch.zeros(6, 3), targets).isfinite()


def test_one_output_for_yes_and_no_wants_a_loss_of_its_own() -> None:
    for targets in (torch.tensor([0, 1]), torch.tensor([False, True]), torch.tensor([[0], [1]])):
        with pytest.raises(DataError, match=r"pass a loss_fn that says so: .*binary_cross_entropy_with_logits"):
            check_classes(torch.zeros(2, 1), targets)
    with pytest.raises(DataError, match=r"relabel the data\.$"):
        check_classes(torch.zeros(2, 1), torch.tensor([0, 2]))
    floats = [(torch.rand(8, 2), (torch.arange(8) % 2).float())]
    assert "If they are classes, store integers" in from_loaders(floats, floats).remarks[0]
    assert from_loaders(floats, floats, task="regression").remarks == ()
