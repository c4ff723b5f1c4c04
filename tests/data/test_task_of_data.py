"""What the data says of the task: classes, fields, values, probabilities; tokens that stay integers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.utils.data import DataLoader, TensorDataset

from compressor.api import as_data
from compressor.data import from_loaders, from_tensors, load_data
from compressor.data.task import IGNORED, Task, find_task
from compressor.errors import DataError, UsageError

G = torch.Generator().manual_seed(0)
IMAGES = torch.randn(20, 3, 6, 5, generator=G)
SIGNALS = torch.randn(20, 2, 9, generator=G)
TOKENS = torch.randint(7, (20, 9), generator=G)


@pytest.mark.parametrize(
    ("inputs", "targets", "task"),
    [
        (IMAGES, torch.arange(20) % 4, Task(outputs=4)),
        (IMAGES, torch.arange(20 * 30).view(20, 6, 5) % 4, Task(dense=True, outputs=4)),
        (IMAGES, torch.rand(20, 6, 5), Task("regression", dense=True, relative=True, outputs=1)),
        (IMAGES, torch.rand(20, 2, 6, 5) + 0.1, Task("regression", dense=True, relative=True, outputs=2)),
        (IMAGES, torch.rand(20), Task("regression", outputs=1)),
        (IMAGES, torch.rand(20, 3), Task("regression", outputs=3)),
        (IMAGES, torch.rand(20, 3).softmax(1), Task(outputs=3)),
        (SIGNALS, torch.rand(20, 9), Task("regression", dense=True, relative=True, outputs=1)),
        (TOKENS, torch.rand(20, 9), Task("regression", dense=True, relative=True, outputs=1)),
        (TOKENS, TOKENS, Task(dense=True, outputs=7)),
        (IMAGES, torch.rand(20, 3, generator=G) > 0.5, Task("multilabel", outputs=3)),
        (IMAGES, (torch.rand(20, 3, generator=G) > 0.5).float(), Task("multilabel", outputs=3)),
        (IMAGES, torch.eye(4)[torch.arange(20) % 4] > 0, Task("multilabel", outputs=4)),
        (IMAGES, torch.eye(4)[torch.arange(20) % 4], Task(outputs=4)),
        (IMAGES, torch.zeros(20, 4), Task("regression", outputs=4)),
        (TOKENS, TOKENS > 3, Task(dense=True, outputs=2)),
        (SIGNALS, torch.rand(20, 9, generator=G).round(), Task("regression", dense=True, relative=True, outputs=1)),
        (IMAGES, torch.rand(20, 5, generator=G).round().long(), Task(dense=True, outputs=2)),
        (IMAGES, torch.zeros(20, 6, 5), Task("regression", dense=True, relative=False, outputs=1)),
    ],
)
def test_task_follows_from_the_targets(inputs: Tensor, targets: Tensor, task: Task) -> None:
    classes = None if targets.is_floating_point() else int(targets.max()) + 1
    if task.is_multilabel:
        classes = task.outputs
    assert find_task(inputs, targets, classes) == task
    data = from_tensors((inputs, targets))
    assert data.task == task
    assert data.outputs == task.outputs
    assert data.num_classes == classes
    loaders = DataLoader(TensorDataset(inputs, targets), batch_size=7)
    found = from_loaders(loaders, loaders, num_classes=classes)
    assert found.task == task


def test_tokens_stay_integers_all_through(tmp_path: Path) -> None:
    np.savez(tmp_path / "d.npz", x_train=TOKENS.numpy().astype(np.int32), y_train=np.arange(20) % 3)
    data = load_data(f"npz:{tmp_path / 'd.npz'}")
    assert data.vocabulary == 7
    assert data.example_inputs.dtype == torch.int64
    assert data.describe()["vocabulary"] == 7
    for split in (data.train, data.val):
        for inputs, _ in split.batches(4, shuffle_seed=1, augment=True):
            assert inputs.dtype == torch.int64
            assert inputs.shape[1:] == (9,)
    assert from_tensors((TOKENS, torch.arange(20) % 3), vocabulary=50).vocabulary == 50
    assert from_tensors((IMAGES, torch.arange(20) % 3)).vocabulary is None


def test_other_integers_are_numbers() -> None:
    data = from_tensors((TOKENS[:, None], torch.arange(20) % 3))
    assert data.vocabulary is None
    assert data.example_inputs.dtype == torch.float32


def test_signals_without_a_channel_axis(tmp_path: Path) -> None:
    file = tmp_path / "d.npz"
    for dtype in (np.float32, np.float64, np.uint8, np.bool_):
        np.savez(file, x_train=SIGNALS[:, 0].numpy().astype(dtype), y_train=np.arange(20) % 2)
        assert load_data(f"npz:{file}").example_inputs.shape == (1, 1, 9)
        assert load_data(f"npz:{file},flat").example_inputs.shape == (1, 9)
    np.savez(file, x_train=SIGNALS.numpy(), y_train=np.arange(20) % 2)
    assert load_data(f"npz:{file}").example_inputs.shape == (1, 2, 9)


def test_npz_regression(tmp_path: Path) -> None:
    np.savez(tmp_path / "d.npz", x_train=IMAGES.numpy(), y_train=IMAGES.numpy().mean(1, dtype=np.float64))
    data = load_data(f"npz:{tmp_path / 'd.npz'}")
    assert data.task == Task("regression", dense=True, relative=True, outputs=1)
    assert next(iter(data.val.batches(2)))[1].dtype == torch.float32


def test_ignored_positions_are_allowed_and_other_labels_are_not() -> None:
    classes = torch.arange(20 * 30).view(20, 6, 5) % 4
    classes[0, 0, 0] = IGNORED
    assert from_tensors((IMAGES, classes)).num_classes == 4
    classes[3, 1, 2] = -1
    with pytest.raises(DataError, match="label -1 of sample 3"):
        from_tensors((IMAGES, classes))


@pytest.mark.parametrize(("wrong", "vocabulary"), [(-2, None), (9, 8)])
def test_tokens_out_of_range(wrong: int, vocabulary: int | None) -> None:
    tokens = TOKENS.clone()
    tokens[5, 3] = wrong
    with pytest.raises(DataError, match=f"token {wrong} of sample 5"):
        from_tensors((tokens, torch.arange(20) % 3), vocabulary=vocabulary)


BINARY = (torch.rand(20, 3, generator=G) > 0.5).float()
OVERRIDDEN = [
    (BINARY, "regression", Task("regression", outputs=3)),
    (BINARY.long(), "multilabel", Task("multilabel", outputs=3)),
    (torch.eye(4)[torch.arange(20) % 4], "multilabel", Task("multilabel", outputs=4)),
    (torch.arange(20) % 4, "regression", Task("regression", outputs=1)),
    (torch.arange(20) % 4, "classification", Task(outputs=4)),
]


@pytest.mark.parametrize(("targets", "kind", "task"), OVERRIDDEN)
def test_what_the_targets_are_can_be_said(targets: Tensor, kind: str, task: Task, tmp_path: Path) -> None:
    data = from_tensors((IMAGES, targets), task=kind)
    assert data.task == task
    assert next(iter(data.val.batches(2)))[1].dtype == (torch.int64 if kind == "classification" else torch.float32)
    assert data.num_classes == (None if kind == "regression" else task.outputs)
    classes = data.num_classes if kind == "classification" else None
    loader = DataLoader(TensorDataset(IMAGES, targets), batch_size=7)
    found = as_data({"train": loader, "val": loader, "num_classes": classes, "task": kind})
    assert found is not None
    assert (found.task, found.num_classes) == (task, data.num_classes)
    np.savez(tmp_path / "d.npz", x_train=IMAGES.numpy(), y_train=targets.numpy())
    assert load_data(f"npz:{tmp_path / 'd.npz'},task={kind}").task == task
    assert load_data(f"npz:{tmp_path / 'd.npz'},flat,task={kind}").task == task


def test_labels_stay_labels_from_file_to_batch(tmp_path: Path) -> None:
    np.savez(tmp_path / "d.npz", x_train=IMAGES.numpy(), y_train=BINARY.bool().numpy())
    data = load_data(f"npz:{tmp_path / 'd.npz'}")
    assert (data.num_classes, data.outputs) == (3, 3)
    assert data.describe()["task"] == "multilabel"
    targets = torch.cat([y for split in (data.train, data.val) for _, y in split.batches(50)])
    assert targets.dtype == torch.float32
    assert float(targets.sum()) == float(BINARY.sum())


@pytest.mark.parametrize(
    ("targets", "kind", "said"),
    [
        (torch.rand(20, 3, generator=G), "multilabel", "other values than 0 and 1"),
        (torch.arange(20) % 2, "multilabel", "several labels"),
        (torch.rand(20, 3, generator=G), "classification", "are no classes"),
    ],
)
def test_targets_of_another_kind_are_refused(targets: Tensor, kind: str, said: str) -> None:
    with pytest.raises(DataError, match=said):
        from_tensors((IMAGES, targets), task=kind)


def test_kinds_that_do_not_exist(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"task must be one of classification, multilabel, .*regression, not 'ranks'"):
        from_loaders([(IMAGES, BINARY)], [(IMAGES, BINARY)], task="ranks")
    with pytest.raises(UsageError, match="cannot be 'ranks': expected classification"):
        load_data(f"npz:{tmp_path / 'd.npz'},task=ranks")


def test_pairs_of_tensors_stand_for_loaders() -> None:
    pair = (IMAGES, torch.arange(len(IMAGES)) % 4)
    part = (IMAGES[:8], pair[1][:8])
    forms: list[Any] = [(pair, part), {"train": pair, "val": part}, [list(pair), list(part)]]
    for form in forms:
        found = as_data(form)
        assert found is not None
        assert (len(found.train), len(found.val), found.num_classes) == (len(IMAGES), 8, 4)
    alone = as_data(pair)
    assert alone is not None
    assert len(alone.train) + len(alone.val) == len(IMAGES)
