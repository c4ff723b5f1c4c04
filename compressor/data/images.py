"""Image files: listed, opened with care, and cut out at random."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from compressor.errors import DataError
from compressor.storage.pictures import MOST_BYTES, SUFFIXES, is_hidden, read_header
from compressor.storage.reading import opened, parsing

DRAWS = 5
"""Random numbers that ``random_box`` and a flip take."""
CURE = "remove or replace it"
_ORIENTATION, _ON_THEIR_SIDE = 274, {5, 6, 7, 8}  # a tag of EXIF, and what swaps width and height
_TURNING = {"exif", "xmp", "Raw profile type exif"}
_STEP_16 = 65535 / 255
_LEAST_AREA = 0.25  # random crops cover at least this share of the image
_ASPECT = (3 / 4, 4 / 3)
Box = tuple[float, float, float, float]


def listed(folder: Path) -> list[Path]:
    """All image files in ``folder`` and below, sorted; without hidden ones, which editors and systems leave there."""
    found = (path for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES)
    return sorted(path for path in found if not is_hidden(path.relative_to(folder)))


@contextmanager
def open_image(file: Path) -> Iterator[Any]:
    """A ``PIL.Image`` whose pixels are not read yet.

    Raises:
        DataError: the file is missing, no image, or announces more pixels than an image has.
    """
    with (
        opened(file, CURE, limit=MOST_BYTES, kind=DataError) as stream,
        parsing(file, "readable image", CURE, kind=DataError),
        read_header(stream) as image,
    ):
        yield image


def read_rgb(file: Path, size: tuple[int, int] | None = None) -> Any:
    """A ``PIL.Image`` of mode RGB, upright as its EXIF orientation says.

    16-bit images are scaled to 8 bits. Where only the stored form has the ``size`` (width, height) that annotations
    give, it stays as it is stored.

    Raises:
        DataError: as ``open_image`` does; or the image has 32 bits a channel, of which nothing says what is white.
    """
    from PIL import Image, ImageOps

    with open_image(file) as image:
        if _may_be_turned(image) and (size in (None, upright_size(image)) or size != image.size):
            ImageOps.exif_transpose(image, in_place=True)
        if image.mode.startswith("I;16") or (image.mode == "I" and image.format == "PPM"):
            return Image.fromarray(np.round(np.asarray(image) / _STEP_16).astype(np.uint8)).convert("RGB")
        if image.mode in ("I", "F"):
            raise DataError(
                f"'{file}' is an image with 32 bits a channel (mode {image.mode}), of which nothing says what is black "
                "and what is white; convert it to 8 or 16 bits."
            )
        return image.convert("RGB")


def _may_be_turned(image: Any) -> bool:
    """Whether anything in the file can say so. Of JPEG all of that is read with the header; of others some is not."""
    return image.format != "JPEG" or not image.info.keys().isdisjoint(_TURNING)


def upright_size(image: Any) -> tuple[int, int]:
    """Width and height once the image is turned as its EXIF orientation says."""
    width, height = image.size
    return (height, width) if image.getexif().get(_ORIENTATION, 1) in _ON_THEIR_SIDE else (width, height)


def pixels(image: Any) -> Tensor:
    """uint8 (C, H, W) of an image of several channels, (H, W) of one with one."""
    found = torch.from_numpy(np.array(image))
    return found.permute(2, 0, 1) if found.dim() == 3 else found


def random_box(width: int, height: int, draw: Sequence[float]) -> Box:
    """A part of an image of random area, at least a quarter, and random aspect, made to fit: left, top, right and
    bottom in pixels. ``draw`` has four numbers in [0, 1)."""
    area = width * height * (_LEAST_AREA + (1 - _LEAST_AREA) * draw[0])
    aspect = _ASPECT[0] * (_ASPECT[1] / _ASPECT[0]) ** draw[1]
    across, down = min((area * aspect) ** 0.5, width), min((area / aspect) ** 0.5, height)
    left, top = (width - across) * draw[2], (height - down) * draw[3]
    return left, top, left + across, top + down
