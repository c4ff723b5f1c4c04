"""Arrays on disk that need not fit into memory: mapped, and read batch by batch.

The system is told which rows come next, and reads them from disk while the batch before is worked on. That costs less
than a thread, which has to be waited for where the rows are in memory already.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from compressor.data.arrays import as_tensor, channel_statistics, is_column
from compressor.data.base import Data
from compressor.data.classes import like_classes, unused_classes
from compressor.data.decoding import Loading, decoded
from compressor.data.holdout import stratified_holdout
from compressor.data.memory import CropFlip, Normalise, augmentation_generator, index_batches
from compressor.data.task import IGNORED, VOID, Task, find_task, is_tokens
from compressor.errors import DataError
from compressor.storage.reading import parsing, require_file

_CURE = "write it with numpy.save: numbers, one sample a row"
_CHUNK = 1024  # samples that are looked at together
_LOOKED_AT = 10_000  # samples that mean and spread are taken of
_LARGE_ROW = 1 << 14  # bytes; smaller ones come with the pages around them
_PARTS = ("train", "val", "test")


def from_folder(folder: Path, *, name: str, task: str | None = None, loading: Loading | None = None) -> Data:
    """A data set of ``x_train.npy``, ``y_train.npy``, and the like for ``val`` and ``test``, see ``from_tensors``.

    Inputs are (N, C, ...), or (N, L) of whole numbers for tokens, and are given as they are stored but for their type;
    bytes are scaled by the mean and spread of up to 10,000 samples of ``train``. Targets are read once, piece by piece,
    to find the classes; what the task is, the first 1,024 say unless ``task`` does.

    Raises:
        DataError: files are missing or no arrays, or do not fit each other.
    """
    arrays = {part: _pair(folder, part) for part in _PARTS if _is_there(folder, part)}
    if "train" not in arrays:
        raise DataError(f"'{folder}' has no x_train.npy and y_train.npy; {_CURE}.")
    if is_column(arrays["train"][1].shape) and arrays["train"][1].dtype.kind != "f":
        arrays = {part: (x, y[:, 0] if is_column(y.shape) else y) for part, (x, y) in arrays.items()}
    x, y = arrays["train"]
    for part, (other, targets) in arrays.items():
        if other.shape[1:] != x.shape[1:] or targets.shape[1:] != y.shape[1:]:
            raise DataError(f"'{folder}': samples of {part} have another shape than those of train.")
    few = as_tensor(x[:_CHUNK]), as_tensor(y[:_CHUNK])
    found = find_task(*few, kind=task)
    as_floats = found.is_multilabel or found.is_regression or few[1].is_floating_point()
    classes = found.outputs if found.is_multilabel else None
    if not as_floats:
        classes = _classes(folder, {part: targets for part, (_, targets) in arrays.items()}, found)
        found = Task(found.kind, found.dense, found.relative, classes)
    words = max(_largest(inputs) for inputs, _ in arrays.values()) + 1 if is_tokens(few[0]) else None
    normalise = None
    if x.dtype == np.uint8:
        normalise = channel_statistics(torch.from_numpy(np.array(x[:: max(1, len(x) // _LOOKED_AT)])))
    told: dict[str, Any] = {"as_floats": as_floats, "normalise": normalise, "loading": loading}
    splits = {part: MappedSplit(*pair, **told) for part, pair in arrays.items()}
    if "val" not in splits:
        labels = as_tensor(np.asarray(y)) if y.ndim == 1 else torch.zeros(len(y), 1)
        kept, held = stratified_holdout(labels)
        splits["train"], splits["val"] = splits["train"].subset(kept), splits["train"].subset(held)
    example = next(iter(splits["val"].batches(1)))[0]
    doubts = [like_classes(found, few[1]) if task is None else None]
    if classes is not None and y.ndim == 1:
        doubts.append(unused_classes(classes, [as_tensor(np.asarray(targets)) for _, targets in arrays.values()]))
    remarks = tuple(said for said in doubts if said is not None)
    return Data(name, splits["train"], splits["val"], splits.get("test"), classes, example, found, words, remarks)


def _is_there(folder: Path, part: str) -> bool:
    there = [(folder / f"{letter}_{part}.npy").is_file() for letter in "xy"]
    if any(there) and not all(there):
        raise DataError(f"'{folder}' has {'xy'[there.index(True)]}_{part}.npy alone; expected both x and y.")
    return all(there)


def _pair(folder: Path, part: str) -> tuple[NDArray[np.generic], NDArray[np.generic]]:
    x, y = (_mapped(folder / f"{letter}_{part}.npy") for letter in "xy")
    if x.ndim < 2 or len(x) != len(y) or not len(x):
        raise DataError(
            f"'{folder}': x_{part} has shape {list(x.shape)}, y_{part} {list(y.shape)}; expected (samples, channels, "
            "...) and a target for each."
        )
    return x, y


def _classes(folder: Path, targets: dict[str, NDArray[np.generic]], task: Task) -> int:
    most = max(_largest(values, ignored=task.is_segmentation) for values in targets.values())
    least = min(int(values[i : i + _CHUNK].min()) for values in targets.values() for i in range(0, len(values), _CHUNK))
    if least < 0 and not (task.dense and least == IGNORED):
        raise DataError(f"'{folder}' has the class {least}; classes count from 0.")
    return most + 1


def _largest(values: NDArray[np.generic], *, ignored: bool = False) -> int:
    pieces = (np.asarray(values[i : i + _CHUNK], np.int64) for i in range(0, len(values), _CHUNK))
    return max(int((np.where(piece == VOID, 0, piece) if ignored else piece).max()) for piece in pieces)


def _mapped(file: Path) -> NDArray[np.generic]:
    """The array in a ``.npy`` file, read where it is looked at."""
    require_file(file, _CURE, kind=DataError)
    with parsing(file, "readable .npy file of numbers", _CURE, kind=DataError):
        found: NDArray[np.generic] = np.load(file, mmap_mode="r", allow_pickle=False)
        if not isinstance(found, np.memmap) or found.dtype.kind not in "biuf" or found.ndim < 1:
            raise ValueError(f"it holds {found.dtype} of shape {list(found.shape)}")
    return found


class MappedSplit:
    """Samples in mapped arrays; implements ``Split``.

    Args:
        inputs: (N, C, ...) of numbers, or (N, L) of whole ones for tokens.
        targets: (N,) or (N, ...); what a batch of them becomes depends on ``as_floats``.
        as_floats: whether targets are values or labels, float32, and no classes, int64.
        indices: which samples belong to this split; None for all.
        normalise, augment: as for ``TensorSplit``.
    """

    def __init__(
        self,
        inputs: NDArray[np.generic],
        targets: NDArray[np.generic],
        *,
        as_floats: bool,
        indices: Tensor | None = None,
        normalise: Normalise | None = None,
        augment: CropFlip | None = None,
        loading: Loading | None = None,
    ) -> None:
        self._inputs, self._targets, self._as_floats = inputs, targets, as_floats
        self._indices = torch.arange(len(inputs)) if indices is None else indices
        self._normalise, self._augment, self._loading = normalise, augment, loading or Loading()

    @property
    def sample_classes(self) -> Tensor | None:
        """The class of every sample; None if targets are none, or many for each sample."""
        if self._as_floats or self._targets.ndim != 1:
            return None
        return as_tensor(np.asarray(self._targets))[self._indices]

    def subset(self, positions: Tensor) -> MappedSplit:
        """The samples at these positions of the split, of the same arrays."""
        return MappedSplit(
            self._inputs,
            self._targets,
            as_floats=self._as_floats,
            indices=self._indices[positions],
            normalise=self._normalise,
            augment=self._augment,
            loading=self._loading,
        )

    def __len__(self) -> int:
        return len(self._indices)

    def batches(
        self, batch_size: int, *, shuffle_seed: int | None = None, augment: bool = False, drop_last: bool = False
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """See ``Split.batches``."""
        generator = augmentation_generator(shuffle_seed)
        chosen = index_batches(len(self), batch_size, shuffle_seed, drop_last)
        rows = [self._indices[one].numpy() for one in chosen]
        read = _Gather(self._inputs, self._targets, rows, self._as_floats)
        for inputs, targets in self._read(read, rows):
            if augment and self._augment is not None:
                inputs = self._augment(inputs, generator)
            yield self._ready(inputs), targets

    def _read(self, read: _Gather, rows: list[NDArray[np.int64]]) -> Iterator[tuple[Tensor, Tensor]]:
        if self._loading.workers or self._loading.pin:
            numbers = [torch.tensor([number]) for number in range(len(rows))]
            yield from decoded(read, _alone, numbers, [[None]] * len(numbers), self._loading)
            return
        with _Announcer(self._inputs) as announcer:
            for number in range(len(rows)):
                announcer.announce(rows[number + 1] if number + 1 < len(rows) else rows[number][:0])
                yield read(number, None)

    def _ready(self, inputs: Tensor) -> Tensor:
        if self._normalise is not None:
            return self._normalise(inputs)
        return inputs if is_tokens(inputs) else inputs.float()


class _Announcer:
    """Tells the system which rows of a mapped array will be read, where rows are large enough to be worth it."""

    def __init__(self, values: NDArray[np.generic]) -> None:
        self._row = values.strides[0]
        self._offset = int(getattr(values, "offset", 0))
        name = getattr(values, "filename", None)
        worth = self._row >= _LARGE_ROW and values.flags.c_contiguous and hasattr(os, "posix_fadvise")
        self._name = name if worth else None
        self._file: int | None = None

    def __enter__(self) -> _Announcer:
        self._file = os.open(self._name, os.O_RDONLY) if self._name is not None else None
        return self

    def __exit__(self, *_: object) -> None:
        if self._file is not None:
            os.close(self._file)

    def announce(self, rows: NDArray[np.int64]) -> None:
        """These rows are next."""
        if self._file is not None:
            for row in rows.tolist():
                start = self._offset + row * self._row
                os.posix_fadvise(self._file, start, self._row, os.POSIX_FADV_WILLNEED)


class _Gather:
    """Reads the samples of a batch by its number."""

    def __init__(
        self,
        inputs: NDArray[np.generic],
        targets: NDArray[np.generic],
        batches: list[NDArray[np.int64]],
        as_floats: bool,
    ) -> None:
        # Views without the class of mapped arrays, which costs more than a small batch.
        self._inputs, self._targets = np.asarray(inputs), np.asarray(targets)
        self._batches, self._as_floats = batches, as_floats

    def __call__(self, number: int, _: Any) -> tuple[Tensor, Tensor]:
        rows = self._batches[number]
        inputs, targets = (as_tensor(np.take(values, rows, axis=0)) for values in (self._inputs, self._targets))
        return inputs, targets.float() if self._as_floats else targets.long()


def _alone(batches: list[tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
    return batches[0]
