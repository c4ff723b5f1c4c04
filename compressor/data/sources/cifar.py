"""CIFAR-10 and CIFAR-100: 32 x 32 colour images, in the formats they are published as, or as one ``.npz`` file.

Source: A. Krizhevsky, "Learning Multiple Layers of Features from Tiny Images", 2009.
Inputs are scaled with the usual ImageNet mean and spread, as published CIFAR networks expect.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from compressor.data.arrays import Pair, from_tensors
from compressor.data.base import Data
from compressor.data.memory import IMAGENET, CropFlip
from compressor.data.sources.npz import read_pairs
from compressor.data.sources.python_batch import read_python_batch
from compressor.errors import DataError
from compressor.storage.packed import read_plain

_PIXELS = 3 * 32 * 32


@dataclass(frozen=True)
class _Layout:
    """Where a data set's files lie, and how."""

    name: str
    num_classes: int
    npz: str
    binary_folder: str
    binary_train: tuple[str, ...]
    binary_test: str
    label_bytes: int  # labels in front of each image; the last one is the class
    python_folder: str
    python_train: tuple[str, ...]
    python_test: str
    label_key: str


_CIFAR10 = _Layout(
    name="cifar10",
    num_classes=10,
    npz="cifar10.npz",
    binary_folder="cifar-10-batches-bin",
    binary_train=tuple(f"data_batch_{i}.bin" for i in range(1, 6)),
    binary_test="test_batch.bin",
    label_bytes=1,
    python_folder="cifar-10-batches-py",
    python_train=tuple(f"data_batch_{i}" for i in range(1, 6)),
    python_test="test_batch",
    label_key="labels",
)
_CIFAR100 = _Layout(
    name="cifar100",
    num_classes=100,
    npz="cifar100.npz",
    binary_folder="cifar-100-binary",
    binary_train=("train.bin",),
    binary_test="test.bin",
    label_bytes=2,
    python_folder="cifar-100-python",
    python_train=("train",),
    python_test="test",
    label_key="fine_labels",
)


def load_cifar10(argument: str) -> Data:
    """CIFAR-10 from a folder. Raises ``DataError`` if it is missing, incomplete or damaged."""
    return _load(argument, _CIFAR10)


def load_cifar100(argument: str) -> Data:
    """CIFAR-100 with its 100 fine classes from a folder. Raises ``DataError`` as ``load_cifar10`` does."""
    return _load(argument, _CIFAR100)


def _load(argument: str, layout: _Layout) -> Data:
    train, test = _find(Path(argument), layout)
    for images, _ in (train, test):
        if images.dtype != np.uint8 or tuple(images.shape[1:]) != (3, 32, 32):
            raise DataError(
                f"'{argument}' holds {images.dtype} images of shape {list(images.shape[1:])}; "
                f"{layout.name} has uint8 images of [3, 32, 32]."
            )
    return from_tensors(
        train,
        test=test,
        name=f"{layout.name}:{argument}",
        num_classes=layout.num_classes,
        normalise=IMAGENET,
        augment=CropFlip(padding=4),
    )


def _find(root: Path, layout: _Layout) -> tuple[Pair, Pair]:
    """Train and test from whatever format lies in ``root``, or one folder below."""
    if not root.exists():
        raise DataError(f"Data folder '{root}' does not exist; expected a folder with {layout.name}.")
    npz = root if root.suffix == ".npz" else root / layout.npz
    if npz.is_file():
        pairs = read_pairs(npz)
        if not {"train", "test"} <= set(pairs):
            raise DataError(f"'{npz}' lacks arrays; it must hold x_train, y_train, x_test and y_test.")
        return pairs["train"], pairs["test"]
    for folder in (root / layout.binary_folder, root):
        if (folder / layout.binary_test).is_file():
            train = [_read_binary(folder / name, layout.label_bytes) for name in layout.binary_train]
            return _join(train), _read_binary(folder / layout.binary_test, layout.label_bytes)
    for folder in (root / layout.python_folder, root):
        if (folder / layout.python_test).is_file():
            train = [_read_python(folder / name, layout.label_key) for name in layout.python_train]
            return _join(train), _read_python(folder / layout.python_test, layout.label_key)
    raise DataError(
        f"'{root}' holds no {layout.name}; expected {layout.npz}, {layout.binary_folder}/ or {layout.python_folder}/."
    )


def _join(pairs: list[Pair]) -> Pair:
    return np.concatenate([np.asarray(x) for x, _ in pairs]), np.concatenate([np.asarray(y) for _, y in pairs])


def _read_binary(file: Path, label_bytes: int) -> Pair:
    """Records of label bytes, then the red, green and blue planes."""
    if not file.is_file():
        raise DataError(f"'{file}' is missing; fetch the data set again.")
    content = np.frombuffer(read_plain(file), np.uint8)
    record = label_bytes + _PIXELS
    if not len(content) or len(content) % record:
        raise DataError(f"'{file}' has {len(content)} bytes, which is no multiple of {record}; fetch it again.")
    records = content.reshape(-1, record)
    return records[:, label_bytes:].reshape(-1, 3, 32, 32), records[:, label_bytes - 1].astype(np.int64)


def _read_python(file: Path, label_key: str) -> Pair:
    if not file.is_file():
        raise DataError(f"'{file}' is missing; fetch the data set again.")
    pixels, labels = read_python_batch(file, label_key)
    if not labels or len(pixels) != len(labels) * _PIXELS:
        raise DataError(f"'{file}' holds {len(pixels)} pixel bytes for {len(labels)} labels; fetch it again.")
    images: NDArray[np.uint8] = np.frombuffer(pixels, np.uint8).reshape(-1, 3, 32, 32)
    return images, np.asarray(labels, np.int64)
