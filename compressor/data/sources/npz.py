"""Arrays in one ``.npz`` file: ``x_train, y_train, x_test, y_test``, and optionally ``x_val, y_val``.

Or in a folder of ``.npy`` files of these names, which are mapped: they may be larger than memory.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from compressor.data.arrays import Array, Pair, from_tensors
from compressor.data.base import Data
from compressor.data.decoding import Loading
from compressor.data.mapped import from_folder
from compressor.data.options import split_options
from compressor.data.task import KINDS
from compressor.errors import DataError
from compressor.storage.packed import open_arrays

_CHANNEL_COUNTS = (1, 3, 4)
_SIGNALS = {"f2", "f4", "f8", "u1", "b1"}


def load(argument: str, loading: Loading | None = None) -> Data:
    """Read ``FILE``, ``FILE,flat`` or ``DIR``; ``FILE,task=regression`` says what the targets are, whatever they look
    like.

    uint8 images may have their channels last, or none at all. Signals may be (N, L), which become (N, 1, L) unless the
    file is said to be ``flat``: a table of features. Integers (N, L) wider than 8 bits are tokens.

    Raises:
        DataError: the file is missing, unreadable, lacks arrays, or holds objects, or targets of another kind.
        UsageError: an unknown option or task.
    """
    place, options = split_options("npz", argument, {"task": _kind})
    flat = place.endswith(",flat")
    file = Path(place.removesuffix(",flat"))
    if file.is_dir():
        return from_folder(file, name=f"npz:{argument}", loading=loading, **options)
    pairs = read_pairs(file)
    if "train" not in pairs:
        raise DataError(f"'{file}' lacks x_train and y_train; it must hold x_train, y_train, x_test and y_test.")
    if not flat:
        pairs = {part: (_as_signals(x), y) for part, (x, y) in pairs.items()}
    return from_tensors(pairs["train"], pairs.get("val"), pairs.get("test"), name=f"npz:{argument}", **options)


def _kind(text: str) -> str:
    if text not in KINDS:
        raise ValueError(f"expected {', '.join(KINDS)}")
    return text


def read_pairs(file: Path) -> dict[str, Pair]:
    """The pairs of arrays in the file by part (train, val, test), images with their channels first."""
    if not file.is_file():
        raise DataError(f"Data file '{file}' does not exist; expected an .npz with x_train, y_train, x_test, y_test.")
    pairs: dict[str, Pair] = {}
    with open_arrays(file, "write it with numpy.savez") as archive:
        for part in ("train", "val", "test"):
            present = [key for key in (f"x_{part}", f"y_{part}") if key in archive.files]
            if len(present) == 1:
                raise DataError(f"'{file}' holds {present[0]} alone; expected both x_{part} and y_{part}.")
            if present:
                pairs[part] = channels_first(archive[present[0]]), archive[present[1]]
    return pairs


def _as_signals(inputs: Array) -> Array:
    """(N, L) of floats, bytes or booleans as one channel, (N, 1, L)."""
    signals = (
        isinstance(inputs, np.ndarray) and inputs.ndim == 2 and inputs.dtype.kind + str(inputs.itemsize) in _SIGNALS
    )
    return inputs[:, None] if signals else inputs


def channels_first(inputs: NDArray[np.generic]) -> NDArray[np.generic]:
    """(N, H, W, C) or (N, H, W) images as (N, C, H, W); everything else as it is."""
    if inputs.ndim == 4 and inputs.shape[3] in _CHANNEL_COUNTS and inputs.shape[1] not in _CHANNEL_COUNTS:
        return inputs.transpose(0, 3, 1, 2)
    if inputs.ndim == 3 and inputs.dtype in (np.uint8, np.bool_):
        return inputs[:, None]
    return inputs
