"""Which files are images, and how their headers are read with care. Imports no torch: servers look at images, too."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import PurePath
from typing import Any, BinaryIO

SUFFIXES = {".jpg", ".jpeg", ".png", ".bmp", ".webp", ".ppm", ".pgm", ".tif", ".tiff"}
FORMATS = ("JPEG", "PNG", "BMP", "WEBP", "PPM", "TIFF")  # others call programs, or say nothing about their size
_LEFT_BEHIND = {"__MACOSX", "__pycache__"}
MOST_BYTES, MOST_PIXELS = 512 << 20, 1 << 26


def is_hidden(path: PurePath) -> bool:
    """Whether a file of this relative path is none of the user's: what systems and editors leave beside images, such
    as ``.DS_Store``, ``__MACOSX/`` and ``.ipynb_checkpoints/``. A class may be called ``__background__``."""
    return any(part.startswith(".") or part in _LEFT_BEHIND for part in path.parts)


@contextmanager
def read_header(stream: BinaryIO) -> Iterator[Any]:
    """A ``PIL.Image`` whose pixels are not read yet. Raises ``ValueError`` for more pixels than an image has, and what
    PIL raises for what is no image."""
    from PIL import Image

    with Image.open(stream, formats=FORMATS) as image:
        if image.width * image.height > MOST_PIXELS:
            raise ValueError(f"it announces {image.width} x {image.height} pixels")
        yield image
