"""Classes that one split lacks are told, once and by name, and nothing is read for it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Subset, TensorDataset

import compressor
from compressor.data import Data, from_loaders, from_tensors, load_data
from compressor.data.classes import missing_classes, remarks, unscaled
from compressor.errors import DataError
from tests.api_models import EXAMPLE, net


class Unread(Dataset[Any]):
    """Samples of which the first alone may be read, with labels that are kept."""

    classes = ("cat", "dog", "emu", "fox", "gnu", "hen", "ibis", "jay")

    def __init__(self, targets: list[int]) -> None:
        self.targets = targets

    def __len__(self) -> int:
        return len(self.targets)

    def __getitem__(self, index: int) -> Any:
        assert index < 8, "what the task is, is told by these"
        return torch.zeros(3, 8, 8), self.targets[index]


def tensors(train: list[int], val: list[int], folder: Path) -> Data:
    pairs = [(torch.zeros(len(each), 3, 4, 4), torch.tensor(each)) for each in (train, val)]
    return from_tensors(pairs[0], pairs[1], num_classes=8)


def loaders(train: list[int], val: list[int], folder: Path) -> Data:
    return from_loaders(*(DataLoader(Unread(each)) for each in (train, val)))


def parts(train: list[int], val: list[int], folder: Path) -> Data:
    whole, cut = Unread([*train, *val]), len(train)
    data = from_loaders(DataLoader(Subset(whole, range(cut))), [(torch.zeros(1, 3, 8, 8), torch.zeros(1).long())])
    other: Any = from_loaders(DataLoader(Unread(val)), [(torch.zeros(1, 3, 8, 8), torch.zeros(1).long())]).train
    return replace(data, val=other)


def mapped(train: list[int], val: list[int], folder: Path) -> Data:
    for name, each in (("train", train), ("val", val)):
        np.save(folder / f"x_{name}.npy", np.zeros((len(each), 3, 4, 4), np.float32))
        np.save(folder / f"y_{name}.npy", np.array(each))
    return load_data(f"npz:{folder}")


NOUGHTS = torch.zeros(1, 4, dtype=torch.long)
FORMS = {"tensors": tensors, "loaders": loaders, "parts": parts, "mapped": mapped}


@pytest.mark.parametrize("form", FORMS)
def test_what_either_split_lacks_is_told_whatever_holds_the_labels(form: str, tmp_path: Path) -> None:
    named = form in ("loaders", "parts")
    assert missing_classes(FORMS[form]([0, 1, 2, 3], [3, 2, 1, 0], tmp_path)) is None
    said = missing_classes(FORMS[form]([0, 1, 2, 3], [0, 3, 7, 7], tmp_path))
    assert said is not None
    assert f"validation split has no sample of 2 classes ({'dog, emu' if named else '1, 2'})" in said
    assert f"training split has no sample of 1 class ({'jay' if named else '7'})" in said
    many = missing_classes(FORMS[form]([*range(8)], [5], tmp_path))
    assert many is not None
    assert f"7 classes ({'cat, dog, emu, fox, gnu' if named else '0, 1, 2, 3, 4'} and 2 more)" in many
    assert "training split has no" not in many


@pytest.mark.parametrize(
    "data",
    [
        from_tensors((torch.zeros(4, 3, 4), torch.rand(4, 1)), (torch.zeros(2, 3, 4), torch.rand(2, 1))),
        from_tensors((torch.zeros(2, 3, 4), torch.tensor([[0] * 4, [1] * 4])), (torch.zeros(1, 3, 4), NOUGHTS)),
        from_loaders([(torch.zeros(2, 3), torch.tensor([0, 1]))], [(torch.zeros(1, 3), torch.tensor([0]))]),
        from_loaders(DataLoader([(torch.zeros(3), 0), (torch.zeros(3), 1)]), DataLoader([(torch.zeros(3), 0)])),  # type: ignore[arg-type]
    ],
    ids=["values", "a class at every position", "batches", "a data set without labels"],
)  # fmt: skip
def test_nothing_is_said_where_labels_are_not_known_or_no_classes(data: Data) -> None:
    assert missing_classes(data) is None


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(0, 4), min_size=2, max_size=120))
def test_a_split_made_here_lacks_no_class_that_has_twenty_samples(labels: list[int]) -> None:
    targets = torch.tensor(labels)
    data = from_tensors((torch.zeros(len(labels), 1, 2), targets), num_classes=5)
    held: Any = data.val
    lacking = set(labels) - set(held.targets.tolist())
    assert all(labels.count(label) < 20 for label in lacking)
    said = missing_classes(data)
    assert (said is None) == (not lacking and set(held.targets.tolist()) <= set(_train(data).tolist()))


def _train(data: Data) -> Tensor:
    split: Any = data.train
    return split.targets  # type: ignore[no-any-return]


def test_the_report_has_it_once_and_the_result_is_the_same() -> None:
    def run(last: int) -> compressor.Result:
        x = torch.randn(24, 3, 8, 8, generator=torch.Generator().manual_seed(0))
        y = torch.arange(24) % 4
        val = TensorDataset(x[:8], torch.tensor([0, 1, 2, 0, 1, 2, 0, last]))
        training = compressor.Training(finetune_epochs=1, batch_size=8)
        data = (DataLoader(TensorDataset(x, y), batch_size=8), DataLoader(val, batch_size=8))
        return compressor.compress(
            net(), EXAMPLE, {"flops": "60%"}, data=data, search="oneshot", importance="magnitude", training=training
        )

    lacking, whole = run(0), run(3)
    assert [text for text in lacking.report.warnings if "no sample of 1 class (3)" in text] == [
        missing for missing in lacking.report.warnings if "no sample" in missing
    ]
    assert sum("no sample" in text for text in lacking.report.warnings) == 1
    assert not any("no sample" in text for text in whole.report.warnings)
    theirs = whole.model.state_dict()
    assert all(torch.equal(tensor, theirs[name]) for name, tensor in lacking.model.state_dict().items())


def arrays(x: Any, y: Any, folder: Path, **given: Any) -> Data:
    return from_tensors((x, y), **given)


def in_files(x: Any, y: Any, folder: Path, **given: Any) -> Data:
    np.save(folder / "x_train.npy", x)
    np.save(folder / "y_train.npy", y)
    return load_data(f"npz:{folder}" + "".join(f",{key}={value}" for key, value in given.items()))


@pytest.mark.parametrize("made", [arrays, in_files])
def test_labels_that_are_no_classes_from_0_are_told(made: Any, tmp_path: Path) -> None:
    x, y = np.zeros((40, 3, 4, 4), np.float32), np.arange(40) % 4
    assert remarks(made(x, y, tmp_path)) == ()
    for labels, what in (
        (y + 1, "No sample has 1 class (0)"),
        (y * 100, "No sample has 297 classes (1, 2, 3, 4, 5 and"),
    ):
        (said,) = remarks(made(x, labels, tmp_path))
        assert said.startswith(what), said
    (said,) = remarks(made(x, y * 0, tmp_path))
    assert said.startswith("All samples have the same class")
    for labels in (y.astype(np.float64), y[:, None].astype(np.float32)):
        data = made(x, labels, tmp_path)
        assert data.task.is_regression
        assert any("4 different ones" in said and "task=classification" in said for said in remarks(data))
        assert remarks(made(x, labels, tmp_path, task="regression")) == ()
        assert remarks(made(x, labels + 0.5, tmp_path)) == ()
        as_classes = arrays(x, labels, tmp_path, task="classification")
        assert (as_classes.num_classes, as_classes.task.kind) == (4, "classification")
    for labels in (np.eye(4, dtype=np.int64)[y], np.eye(4, dtype=np.uint8)[y]):
        with pytest.raises(DataError, match="argmax"):
            made(x, labels, tmp_path)


def test_labels_of_loaders_that_are_no_classes_from_0_are_told() -> None:
    def given(labels: Tensor, **more: Any) -> Data:
        loader = DataLoader(TensorDataset(torch.zeros(len(labels), 3, 4, 4), labels), batch_size=4)
        return from_loaders(loader, loader, **more)

    labels = torch.arange(40) % 4
    assert remarks(given(labels)) == remarks(given(labels + 1, num_classes=5)) == ()
    (said,) = remarks(given(labels + 1))
    assert said.startswith("No sample has 1 class (0)")


@pytest.mark.parametrize("made", [arrays, in_files])
@pytest.mark.parametrize("kind", [np.float32, np.int64, np.uint16])
def test_inputs_that_nobody_scaled_are_told(made: Any, kind: Any, tmp_path: Path) -> None:
    pixels, y = np.random.default_rng(0).integers(0, 256, (40, 3, 4, 4)), np.arange(40) % 4
    (said,) = remarks(made(pixels.astype(kind), y, tmp_path))
    assert "store images as bytes" in said
    for fine in (pixels.astype(np.uint8), (pixels / 255).astype(np.float32)):
        assert remarks(made(fine, y, tmp_path)) == ()


def test_inputs_of_any_structure_are_looked_at() -> None:
    large, small = torch.full((1, 3), 100.0), torch.ones(1, 3)
    assert unscaled({"a": small, "b": (small, large)}) is not None
    for fine in (small, [small, small], torch.full((1, 3), 100), torch.zeros(1, 0), {"ids": torch.full((1, 9), 30000)}):
        assert unscaled(fine) is None
