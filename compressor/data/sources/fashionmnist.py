"""Fashion-MNIST: 28 x 28 gray images of ten kinds of clothing, in the idx files it is published as.

Source: H. Xiao, K. Rasul, R. Vollgraf, "Fashion-MNIST: a Novel Image Dataset", 2017.
"""

from __future__ import annotations

import math
import struct
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from compressor.data.arrays import from_tensors
from compressor.data.base import Data
from compressor.data.memory import CropFlip
from compressor.errors import DataError
from compressor.storage.packed import read_gzip, read_plain

_FOLDERS = ("FashionMNIST/raw", "raw", "")
_UINT8 = 0x08


def load(argument: str) -> Data:
    """Read the four idx files, packed or not, in ``DIR``, ``DIR/raw`` or ``DIR/FashionMNIST/raw``.

    Raises:
        DataError: a file is missing, damaged, or of another shape.
    """
    root = Path(argument)
    pairs = []
    for part in ("train", "t10k"):
        images = _read_idx(_find(root, f"{part}-images-idx3-ubyte"), axes=3)
        labels = _read_idx(_find(root, f"{part}-labels-idx1-ubyte"), axes=1)
        pairs.append((images[:, None], labels))
    return from_tensors(
        pairs[0], test=pairs[1], name=f"fashionmnist:{argument}", num_classes=10, augment=CropFlip(padding=2)
    )


def _find(root: Path, name: str) -> Path:
    for folder in _FOLDERS:
        for suffix in ("", ".gz"):
            if (file := root / folder / (name + suffix)).is_file():
                return file
    raise DataError(f"'{root}' lacks {name}[.gz]; expected the idx files there, in raw/ or in FashionMNIST/raw/.")


def _read_idx(file: Path, axes: int) -> NDArray[np.uint8]:
    """An idx file: two zero bytes, type, number of axes, their sizes as big-endian 32-bit numbers, then the data."""
    content = read_gzip(file) if file.suffix == ".gz" else read_plain(file)
    head = 4 + 4 * axes
    if len(content) < head or content[:4] != bytes((0, 0, _UINT8, axes)):
        raise DataError(f"'{file}' is no idx file of bytes with {axes} axes; fetch it again.")
    shape = struct.unpack(f">{axes}I", content[4:head])
    if math.prod(shape) != len(content) - head:
        raise DataError(f"'{file}' announces the shape {shape} but holds {len(content) - head} bytes; fetch it again.")
    return np.frombuffer(content, np.uint8, offset=head).reshape(shape)
