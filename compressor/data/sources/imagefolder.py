"""Folders of images, one sub-folder for each class: ``DIR/train/CLASS/*.jpg``, likewise ``val`` and ``test``.

Images are decoded batch by batch, in threads. Random numbers are drawn before the threads start, so that their order
of work does not show.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from compressor.data.base import Data
from compressor.data.holdout import stratified_holdout
from compressor.data.memory import Normalise, index_batches
from compressor.errors import DataError
from compressor.storage.reading import parsing, require_file

DEFAULT_SIZE = 224
_NORMALISE = Normalise((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
_SUFFIXES = {".jpg", ".jpeg", ".png", ".bmp", ".webp", ".ppm", ".pgm", ".tif", ".tiff"}
_FORMATS = ("JPEG", "PNG", "BMP", "WEBP", "PPM", "TIFF")  # others call programs, or say nothing about their size
_MOST_BYTES, _MOST_PIXELS = 512 << 20, 1 << 26
_CENTRE = 0.875  # share of the shorter side that evaluation cuts out
_LEAST_AREA = 0.25  # random crops cover at least this share of the image
_ASPECT = (3 / 4, 4 / 3)
_Samples = list[tuple[Path, int]]


class ImageFolderSplit:
    """Image files with their classes; implements ``Split``. Batches are float32 (B, 3, size, size)."""

    def __init__(self, samples: _Samples, size: int) -> None:
        self._samples = samples
        self._size = size

    def __len__(self) -> int:
        return len(self._samples)

    def batches(
        self, batch_size: int, *, shuffle_seed: int | None = None, augment: bool = False, drop_last: bool = False
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """See ``Split.batches``. The next batch is decoded while the current one is used."""
        generator = torch.Generator().manual_seed((shuffle_seed or 0) ^ 0x1F83D9AB)
        chosen = list(index_batches(len(self), batch_size, shuffle_seed, drop_last))
        with ThreadPoolExecutor(max_workers=min(8, os.cpu_count() or 1)) as pool:
            waiting: list[tuple[Tensor, list[Future[Tensor]]]] = []
            for indices in [*chosen, None]:
                if indices is not None:
                    waiting.append((indices, self._submit(pool, indices, generator if augment else None)))
                if len(waiting) == 2 or (indices is None and waiting):
                    ready, futures = waiting.pop(0)
                    images = torch.stack([future.result() for future in futures])
                    targets = torch.tensor([self._samples[int(i)][1] for i in ready])
                    yield _NORMALISE(images), targets

    def _submit(
        self, pool: ThreadPoolExecutor, indices: Tensor, generator: torch.Generator | None
    ) -> list[Future[Tensor]]:
        draws = torch.rand(len(indices), 5, generator=generator).tolist() if generator else [None] * len(indices)
        return [
            pool.submit(_decode, self._samples[int(i)][0], self._size, draw)
            for i, draw in zip(indices, draws, strict=True)
        ]


def load(argument: str, image_size: int | None = None) -> Data:
    """Read a folder with ``train`` and optionally ``val`` and ``test`` in it, or with the classes directly.

    Raises:
        DataError: the folder is missing or empty, or a class of ``val`` or ``test`` does not occur in ``train``.
    """
    root = Path(argument)
    if not root.is_dir():
        raise DataError(f"Data folder '{root}' does not exist; expected train/CLASS/*.jpg in it.")
    size = image_size or DEFAULT_SIZE
    train_root = root / "train" if (root / "train").is_dir() else root
    classes = sorted(folder.name for folder in train_root.iterdir() if folder.is_dir())
    train = _list(train_root, classes)
    parts = {
        part: _list(root / part, classes) for part in ("val", "test") if train_root != root and (root / part).is_dir()
    }
    if "val" not in parts:
        kept, held = stratified_holdout(torch.tensor([target for _, target in train]))
        parts["val"] = [train[int(i)] for i in held]
        train = [train[int(i)] for i in kept]
    splits = {part: ImageFolderSplit(samples, size) for part, samples in {"train": train, **parts}.items()}
    example = next(iter(splits["val"].batches(1)))[0]
    name = f"imagefolder:{argument}"
    return Data(name, splits["train"], splits["val"], splits.get("test"), len(classes), example)


def _list(folder: Path, classes: list[str]) -> _Samples:
    samples: _Samples = []
    numbers = {name: number for number, name in enumerate(classes)}
    for sub in sorted(path for path in folder.iterdir() if path.is_dir()):
        if sub.name not in numbers:
            raise DataError(f"'{sub}' is a class that train/ lacks; expected one of its {len(classes)} classes.")
        files = sorted(path for path in sub.rglob("*") if path.suffix.lower() in _SUFFIXES)
        samples += [(file, numbers[sub.name]) for file in files]
    if not samples:
        raise DataError(f"'{folder}' holds no images; expected CLASS/*.jpg (or {', '.join(sorted(_SUFFIXES))}).")
    return samples


def _decode(file: Path, size: int, draw: list[float] | None) -> Tensor:
    """A uint8 (3, size, size) image: cut at random as ``draw`` says, or from the centre."""
    from PIL import Image

    cure = "remove or replace it"
    require_file(file, cure, limit=_MOST_BYTES, kind=DataError)
    with parsing(file, "readable image", cure, kind=DataError), Image.open(file, formats=_FORMATS) as image:
        if image.width * image.height > _MOST_PIXELS:
            raise DataError(f"'{file}' announces {image.width} x {image.height} pixels; {cure}.")
        rgb = image.convert("RGB")
    box = _centre_box(*rgb.size) if draw is None else _random_box(*rgb.size, draw)
    resized: Any = rgb.resize((size, size), Image.Resampling.BILINEAR, box=box)
    pixels = torch.from_numpy(np.array(resized)).permute(2, 0, 1)
    return pixels.flip(2) if draw is not None and draw[4] < 0.5 else pixels


def _centre_box(width: int, height: int) -> tuple[float, float, float, float]:
    side = min(width, height) * _CENTRE
    left, top = (width - side) / 2, (height - side) / 2
    return left, top, left + side, top + side


def _random_box(width: int, height: int, draw: list[float]) -> tuple[float, float, float, float]:
    """A part of the image of random area and aspect, made to fit."""
    area = width * height * (_LEAST_AREA + (1 - _LEAST_AREA) * draw[0])
    aspect = _ASPECT[0] * (_ASPECT[1] / _ASPECT[0]) ** draw[1]
    across, down = min((area * aspect) ** 0.5, width), min((area / aspect) ** 0.5, height)
    left, top = (width - across) * draw[2], (height - down) * draw[3]
    return left, top, left + across, top + down
