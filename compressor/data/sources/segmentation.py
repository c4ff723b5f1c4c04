"""Folders of images and masks: ``DIR/train/images/*.jpg`` with ``DIR/train/masks/*.png``, and ``val`` and ``test``.

A mask has the name and the place of its image but for the suffix, and a whole number for every pixel: the class, or 255
where a pixel does not count. Masks have one channel, or a palette, whose colours say nothing.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from compressor.data.base import Data
from compressor.data.decoding import Draw, Loading, decoded, draws_for
from compressor.data.folders import parts_in
from compressor.data.holdout import stratified_holdout
from compressor.data.images import DRAWS, listed, pixels, random_box, read_rgb
from compressor.data.masks import common_size, look_at, read_mask
from compressor.data.memory import IMAGENET, index_batches
from compressor.data.options import split_options, whole
from compressor.data.task import IGNORED, VOID, Task
from compressor.errors import DataError
from compressor.storage.pictures import SUFFIXES
from compressor.storage.reading import MEGABYTE, parsing, read_bytes

DEFAULT_SIZE = (224, 224)
_NAMES = "classes.txt"
_FOLDERS = ("images", "masks")
_FEW = 64  # masks that are looked at where classes are known


@dataclass(frozen=True)
class Pair:
    """Files of an image and its mask."""

    image: Path
    mask: Path


class SegmentationSplit:
    """Images and masks; implements ``Split``. Batches are float32 (B, 3, H, W) and int64 (B, H, W).

    Augmentation cuts out the same part of both, at random, and mirrors half of them.

    Args:
        size: height and width that both are brought to.
        classes: what masks may have, from 0; other numbers but 255 are refused.
    """

    def __init__(self, pairs: list[Pair], size: tuple[int, int], classes: int, loading: Loading | None = None) -> None:
        self._pairs, self._size, self._classes, self._loading = pairs, size, classes, loading or Loading()

    def __len__(self) -> int:
        return len(self._pairs)

    def batches(
        self, batch_size: int, *, shuffle_seed: int | None = None, augment: bool = False, drop_last: bool = False
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """See ``Split.batches``. The next batch is decoded while the current one is used."""
        chosen = index_batches(len(self), batch_size, shuffle_seed, drop_last)
        draws = draws_for(chosen, DRAWS, (shuffle_seed or 0) if augment else None)
        for images, masks in decoded(self._read, _collated, chosen, draws, self._loading):
            yield IMAGENET(images), masks.long().masked_fill(masks == VOID, IGNORED)

    def _read(self, index: int, draw: Draw) -> tuple[Tensor, Tensor]:
        from PIL import Image

        pair = self._pairs[index]
        mask = read_mask(pair.mask)
        image = read_rgb(pair.image, mask.size)
        if image.size != mask.size:
            raise DataError(
                f"'{pair.mask}' has {mask.width} x {mask.height} pixels, its image {image.width} x {image.height}; "
                "a mask has a number for every pixel of its image."
            )
        height, width = self._size
        box = (0.0, 0.0, float(image.width), float(image.height))
        if draw is not None:
            box = random_box(image.width, image.height, draw)
        image = pixels(image.resize((width, height), Image.Resampling.BILINEAR, box=box))
        found = pixels(mask.resize((width, height), Image.Resampling.NEAREST, box=box)).to(torch.int32)
        strange = (found >= self._classes) & (found != VOID) | (found < 0)
        if bool(strange.any()):
            raise DataError(
                f"'{pair.mask}' has the class {int(found[strange][0])}; expected 0 to {self._classes - 1}, or {VOID} "
                "where a pixel does not count (classes=N says how many there are)."
            )
        found = found.to(torch.uint8 if self._classes <= VOID else torch.int32)
        return (image.flip(2), found.flip(1)) if draw is not None and draw[4] < 0.5 else (image, found)


def load(argument: str, image_size: int | None = None, loading: Loading | None = None) -> Data:
    """``DIR``, ``DIR,classes=N`` or ``DIR,size=HxW``: a folder with ``train`` and optionally ``val`` and ``test`` in
    it, or with ``images`` and ``masks`` directly.

    Classes are those that ``classes.txt`` names, one a line, or as many as asked for; else all masks of ``train`` are
    read to find the largest. Without a size images are brought to that of all masks of ``train``, or to 224 x 224 where
    these differ.

    Raises:
        DataError: a folder is missing or empty, an image has no mask or two, or a mask is none.
        UsageError: an unknown option.
    """
    place, options = split_options("segmentation", argument, {"classes": _count, "size": _size})
    root = Path(place)
    if not root.is_dir():
        raise DataError(f"Data folder '{root}' does not exist; expected train/images/ and train/masks/ in it.")
    parts = {part: _list(folder) for part, folder in (parts_in(root) or {"train": root}).items()}
    train = parts.pop("train")
    classes = options.get("classes") or _named(root)
    size = options.get("size") or (None if image_size is None else (image_size, image_size))
    remarks: tuple[str, ...] = ()
    masks = [pair.mask for pair in train]
    if classes is None:
        seen = look_at(masks)
        classes, remarks = seen.class_count(root), seen.remarks(root)
        size = size or seen.common_size
    else:
        look_at(masks[:: -(-len(masks) // _FEW)]).require_foreground(root)
        size = size or common_size(masks)
    size = size or DEFAULT_SIZE
    if "val" not in parts:
        kept, held = stratified_holdout(torch.zeros(len(train)))
        parts["val"] = [train[int(i)] for i in held]
        train = [train[int(i)] for i in kept]
    splits = {part: SegmentationSplit(p, size, classes, loading) for part, p in {"train": train, **parts}.items()}
    example = next(iter(SegmentationSplit(parts["val"][:1], size, classes).batches(1)))[0]
    task = Task("segmentation", dense=True, outputs=classes)
    name = f"segmentation:{argument}"
    return Data(name, splits["train"], splits["val"], splits.get("test"), classes, example, task, remarks=remarks)


def _list(folder: Path) -> list[Pair]:
    images, masks = (folder / name for name in _FOLDERS)
    missing = [name for name in _FOLDERS if not (folder / name).is_dir()]
    if missing:
        raise DataError(f"'{folder}' has no {' and no '.join(missing)}/; expected images/ and masks/ in it.")
    found: dict[Path, Path] = {}
    for file in listed(masks):
        place = file.relative_to(masks).with_suffix("")
        if place in found:
            raise DataError(f"'{found[place]}' and '{file}' are masks of one image; leave one.")
        found[place] = file
    pairs, alone = [], []
    for file in listed(images):
        mask = found.get(file.relative_to(images).with_suffix(""))
        if mask is None:
            alone.append(file)
        else:
            pairs.append(Pair(file, mask))
    if alone:
        raise DataError(
            f"{len(alone)} image{'s have' if len(alone) > 1 else ' has'} no mask, the first '{alone[0]}'; expected "
            f"'{masks / alone[0].relative_to(images).with_suffix('.png')}'. Add the masks, or remove the images."
        )
    if not pairs:
        raise DataError(f"'{images}' holds no images; expected *.jpg (or {', '.join(sorted(SUFFIXES))}).")
    return pairs


def _named(root: Path) -> int | None:
    file = root / _NAMES
    if not file.is_file():
        return None
    cure = "write one class a line, in UTF-8"
    with parsing(file, "list of classes", cure, kind=DataError):
        names = [line.strip() for line in read_bytes(file, cure, limit=MEGABYTE, kind=DataError).decode().splitlines()]
    if not any(names):
        raise DataError(f"'{file}' names no class; write one a line, or remove it.")
    return len([name for name in names if name])


def _count(text: str) -> int:
    return whole(2)(text)


def _size(text: str) -> tuple[int, int]:
    parts = text.lower().split("x")
    if len(parts) not in (1, 2) or not all(part.isdecimal() and 0 < int(part) < 1 << 14 for part in parts):
        raise ValueError("expected a side or HEIGHTxWIDTH in pixels")
    return int(parts[0]), int(parts[-1])


def _collated(samples: list[tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
    images, masks = zip(*samples, strict=True)
    return torch.stack(images), torch.stack(masks)
