"""Arrays of any type, in one file or in a folder of mapped ones, mean the same."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from compressor.data import load_data

N = 24
X = np.random.default_rng(0).integers(0, 200, (N, 3, 4, 4))
Y = np.arange(N) % 3
TYPES = ["u1", "i1", "i2", ">i2", "u2", ">u2", "i4", ">i8", "u8", "f2", ">f2", "f4", ">f4", "f8", ">f8", "g", "?"]


def stored(root: Path, kind: str, x: np.ndarray, y: np.ndarray) -> str:
    if kind == "file":
        np.savez(root / "data.npz", x_train=x, y_train=y)
        return f"npz:{root / 'data.npz'}"
    np.save(root / "x_train.npy", x)
    np.save(root / "y_train.npy", y)
    return f"npz:{root}"


@pytest.mark.parametrize("kind", ["file", "folder"])
@pytest.mark.parametrize("dtype", TYPES)
def test_inputs_of_any_type(tmp_path: Path, kind: str, dtype: str) -> None:
    values = X.astype(dtype)
    data = load_data(stored(tmp_path, kind, values, Y))
    inputs = torch.cat([x for x, _ in (*data.train.batches(N), *data.val.batches(N))])
    assert inputs.dtype == torch.float32
    if dtype != "u1":  # which is scaled
        assert sorted(inputs.flatten().tolist()) == sorted(values.astype(np.float64).flatten().tolist())


@pytest.mark.parametrize("kind", ["file", "folder"])
@pytest.mark.parametrize("shape", [(N,), (N, 1)])
@pytest.mark.parametrize("dtype", ["u1", "i2", ">i4", "u4", ">i8", "u8"])
def test_classes_of_any_type_and_in_a_column(tmp_path: Path, kind: str, dtype: str, shape: tuple[int, ...]) -> None:
    data = load_data(stored(tmp_path, kind, X, Y.astype(dtype).reshape(shape)))
    assert (data.num_classes, data.task.kind, data.task.dense) == (3, "classification", False)
    _, targets = next(iter(data.train.batches(5)))
    assert (targets.shape, targets.dtype) == ((5,), torch.int64)


@pytest.mark.parametrize("kind", ["file", "folder"])
@pytest.mark.parametrize("dtype", ["f2", ">f4", "f8", "g"])
def test_values_of_any_type(tmp_path: Path, kind: str, dtype: str) -> None:
    data = load_data(stored(tmp_path, kind, X, (Y + 0.5).astype(dtype)[:, None]))
    assert (data.task.kind, data.outputs) == ("regression", 1)
    _, targets = next(iter(data.train.batches(5)))
    assert (targets.shape, targets.dtype) == ((5, 1), torch.float32)
