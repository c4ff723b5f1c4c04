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
from compressor.storage.pictures import MOST_BYTES, SUFFIXES, read_header
from compressor.storage.reading import opened, parsing

DRAWS = 5
"""Random numbers that ``random_box`` and a flip take."""
CURE = "remove or replace it"
_LEAST_AREA = 0.25  # random crops cover at least this share of the image
_ASPECT = (3 / 4, 4 / 3)
Box = tuple[float, float, float, float]


def listed(folder: Path) -> list[Path]:
    """All image files in ``folder`` and below, sorted."""
    return sorted(path for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES)


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
