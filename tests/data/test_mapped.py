"""Folders of arrays that are mapped: the same batches as from memory, and what is refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from compressor.data import load_data
from compressor.data.decoding import Loading
from compressor.data.mapped import MappedSplit
from compressor.errors import DataError, UsageError

RNG = np.random.default_rng(0)


def save(folder: Path, **arrays: np.ndarray) -> Path:
    for name, values in arrays.items():
        np.save(folder / f"{name}.npy", values)
    np.savez(folder / "all.npz", **arrays)
    return folder


CASES = {
    "images": (RNG.integers(0, 256, (40, 3, 8, 8), dtype=np.uint8), RNG.integers(0, 4, 40)),
    "signals": (RNG.normal(size=(40, 2, 30)), RNG.integers(0, 3, 40).astype(np.int16)),
    "tokens": (RNG.integers(0, 50, (40, 12)).astype(np.int32), RNG.integers(0, 3, 40)),
    "labels": (RNG.normal(size=(40, 2, 9)), RNG.integers(0, 2, (40, 5)).astype(bool)),
    "field": (RNG.normal(size=(40, 1, 6, 6)), RNG.normal(size=(40, 1, 6, 6))),
    "large": (RNG.integers(0, 256, (24, 3, 80, 80), dtype=np.uint8), RNG.integers(0, 4, 24)),
    "dense": (RNG.normal(size=(40, 1, 6, 6)), RNG.integers(0, 3, (40, 6, 6)).astype(np.uint8)),
}


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("workers", [0, 1])
def test_the_same_as_from_memory(tmp_path: Path, name: str, workers: int) -> None:
    x, y = CASES[name]
    folder = save(tmp_path, x_train=x, y_train=y, x_test=x[:7], y_test=y[:7])
    mapped = load_data(f"npz:{folder}", loading=Loading(workers))
    loaded = load_data(f"npz:{folder / 'all.npz'}")
    assert isinstance(mapped.train, MappedSplit)
    assert {**mapped.describe(), "name": ""} == {**loaded.describe(), "name": ""}
    assert mapped.task == loaded.task
    for one, two in ((mapped.train, loaded.train), (mapped.val, loaded.val), (mapped.test, loaded.test)):
        assert one is not None
        assert two is not None
        for seed in (None, 3):
            for left, right in zip(one.batches(7, shuffle_seed=seed), two.batches(7, shuffle_seed=seed), strict=True):
                for a, b in zip(left, right, strict=True):
                    assert a.dtype == b.dtype
                    assert torch.equal(a, b)


def test_masks_with_pixels_that_do_not_count(tmp_path: Path) -> None:
    masks = RNG.integers(0, 3, (20, 4, 4)).astype(np.uint8)
    masks[:, 0] = 255
    data = load_data(f"npz:{save(tmp_path, x_train=RNG.normal(size=(20, 1, 4, 4)), y_train=masks)},task=segmentation")
    assert (data.task.kind, data.num_classes) == ("segmentation", 3)


def test_what_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no x_train\.npy"):
        load_data(f"npz:{tmp_path}")
    x, y = CASES["signals"]
    np.save(tmp_path / "x_train.npy", x)
    with pytest.raises(DataError, match=r"x_train\.npy alone"):
        load_data(f"npz:{tmp_path}")
    np.save(tmp_path / "y_train.npy", y[:-1])
    with pytest.raises(DataError, match=r"x_train has shape \[40, 2, 30\], y_train \[39\]"):
        load_data(f"npz:{tmp_path}")
    np.save(tmp_path / "y_train.npy", y.astype(np.int64) - 2)
    with pytest.raises(DataError, match="the class -2"):
        load_data(f"npz:{tmp_path}")
    np.save(tmp_path / "y_train.npy", np.array([{}] * 40), allow_pickle=True)
    with pytest.raises(DataError, match=r"y_train\.npy"):
        load_data(f"npz:{tmp_path}")
    np.save(tmp_path / "y_train.npy", np.array(["a"] * 40))
    with pytest.raises(DataError, match="it holds <U1"):
        load_data(f"npz:{tmp_path}")
    (tmp_path / "y_train.npy").write_bytes((tmp_path / "x_train.npy").read_bytes()[:200])
    with pytest.raises(DataError, match=r"y_train\.npy"):
        load_data(f"npz:{tmp_path}")
    with pytest.raises(UsageError, match="task"):
        load_data(f"npz:{tmp_path},task=anything")
