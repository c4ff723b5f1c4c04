"""Folders of images, one sub-folder for each class: ``DIR/train/CLASS/*.jpg``, likewise ``val`` and ``test``."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from compressor.data.base import Data
from compressor.data.decoding import Draw, Loading, decoded, draws_for
from compressor.data.folders import parts_in
from compressor.data.holdout import stratified_holdout
from compressor.data.images import DRAWS, Box, listed, pixels, random_box, read_rgb
from compressor.data.memory import IMAGENET, index_batches
from compressor.errors import DataError
from compressor.storage.pictures import SUFFIXES, is_hidden

DEFAULT_SIZE = 224
_CENTRE = 0.875  # share of the shorter side that evaluation cuts out
_Samples = list[tuple[Path, Any]]


class ImageFolderSplit:
    """Image files with their targets; implements ``Split``. Batches are float32 (B, 3, size, size).

    Args:
        samples: files, and a number or a tensor for each.
    """

    def __init__(self, samples: _Samples, size: int, loading: Loading | None = None) -> None:
        self._samples, self._size, self._loading = samples, size, loading or Loading()

    def __len__(self) -> int:
        return len(self._samples)

    @property
    def sample_classes(self) -> Tensor | None:
        """The class of every sample; None if targets are tensors."""
        numbers = [target for _, target in self._samples if isinstance(target, int)]
        return torch.tensor(numbers) if len(numbers) == len(self._samples) else None

    def batches(
        self, batch_size: int, *, shuffle_seed: int | None = None, augment: bool = False, drop_last: bool = False
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """See ``Split.batches``. The next batch is decoded while the current one is used."""
        chosen = index_batches(len(self), batch_size, shuffle_seed, drop_last)
        draws = draws_for(chosen, DRAWS, (shuffle_seed or 0) if augment else None)
        for images, targets in decoded(self._read, _collated, chosen, draws, self._loading):
            yield IMAGENET(images), targets

    def _read(self, index: int, draw: Draw) -> tuple[Tensor, Tensor]:
        file, target = self._samples[index]
        return _decode(file, self._size, draw), torch.as_tensor(target)


def load(argument: str, image_size: int | None = None, loading: Loading | None = None) -> Data:
    """Read a folder with ``train`` and optionally ``val`` and ``test`` in it, or with the classes directly.

    Raises:
        DataError: the folder is missing or empty, a class of ``val`` or ``test`` does not occur in ``train``, or one of
            ``train`` has no images.
    """
    root = Path(argument)
    if not root.is_dir():
        raise DataError(f"Data folder '{root}' does not exist; expected train/CLASS/*.jpg in it.")
    size = image_size or DEFAULT_SIZE
    folders = parts_in(root) or {"train": root}
    classes = [folder.name for folder in _class_folders(folders["train"])]
    parts = {part: _list(folder, classes) for part, folder in folders.items()}
    train = parts.pop("train")
    if empty := [name for number, name in enumerate(classes) if number not in {target for _, target in train}]:
        raise DataError(f"'{folders['train'] / empty[0]}' is a class without images; add some, or remove the folder.")
    if "val" not in parts:
        kept, held = stratified_holdout(torch.tensor([target for _, target in train]))
        parts["val"] = [train[int(i)] for i in held]
        train = [train[int(i)] for i in kept]
    splits = {part: ImageFolderSplit(samples, size, loading) for part, samples in {"train": train, **parts}.items()}
    example = next(iter(ImageFolderSplit(parts["val"][:1], size).batches(1)))[0]
    name = f"imagefolder:{argument}"
    return Data(
        name, splits["train"], splits["val"], splits.get("test"), len(classes), example, class_names=tuple(classes)
    )


def _class_folders(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.is_dir() and not is_hidden(path.relative_to(folder)))


def _list(folder: Path, classes: list[str]) -> _Samples:
    samples: _Samples = []
    numbers = {name: number for number, name in enumerate(classes)}
    for sub in _class_folders(folder):
        if sub.name not in numbers:
            raise DataError(f"'{sub}' is a class that train/ lacks; expected one of its {len(classes)} classes.")
        samples += [(file, numbers[sub.name]) for file in listed(sub)]
    if not samples:
        raise DataError(f"'{folder}' holds no images; expected CLASS/*.jpg (or {', '.join(sorted(SUFFIXES))}).")
    return samples


def _decode(file: Path, size: int, draw: Draw) -> Tensor:
    """A uint8 (3, size, size) image: cut at random as ``draw`` says, or from the centre."""
    from PIL import Image

    rgb = read_rgb(file)
    box = _centre_box(*rgb.size) if draw is None else random_box(rgb.width, rgb.height, draw)
    found = pixels(rgb.resize((size, size), Image.Resampling.BILINEAR, box=box))
    return found.flip(2) if draw is not None and draw[4] < 0.5 else found


def _collated(samples: list[tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
    images, targets = zip(*samples, strict=True)
    return torch.stack(images), torch.stack(targets)


def _centre_box(width: int, height: int) -> Box:
    side = min(width, height) * _CENTRE
    left, top = (width - side) / 2, (height - side) / 2
    return left, top, left + side, top + side
