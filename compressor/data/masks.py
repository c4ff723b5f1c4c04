"""Masks of segmentation on disk: read with care, and looked at for what they hold."""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from compressor.data.images import CURE, open_image
from compressor.data.task import VOID
from compressor.errors import DataError

_MODES = {"L", "P", "1", "I", "I;16"}  # modes of PIL with one number for a pixel
_NAMED = 5


@dataclass(frozen=True)
class Seen:
    """What masks hold.

    Attributes:
        classes: the numbers that occur, sorted, without ``VOID``.
        void: whether some pixels do not count.
        sizes: heights and widths that occur.
    """

    classes: tuple[int, ...]
    void: bool
    sizes: frozenset[tuple[int, int]]

    @property
    def common_size(self) -> tuple[int, int] | None:
        """The height and width that all have, if they do."""
        return next(iter(self.sizes)) if len(self.sizes) == 1 else None

    def require_foreground(self, root: Path) -> None:
        """Refuse masks of 0 and ``VOID`` alone: pictures of white on black, in which all that is white would not count.

        Raises ``DataError``.
        """
        if self.void and set(self.classes) <= {0}:
            raise DataError(
                f"The masks of '{root}' hold nothing but {', '.join(map(str, (*self.classes, VOID)))}, and {VOID} "
                "marks pixels that do not count; write 1 for what is to be found."
            )

    def class_count(self, root: Path) -> int:
        """How many classes there are, from 0 to the largest. Raises ``DataError`` if there is nothing to tell apart."""
        self.require_foreground(root)
        if self.classes == (0,):
            raise DataError(
                f"The masks of '{root}' hold nothing but class 0, so there is nothing to tell apart; classes=N says "
                "how many classes there are."
            )
        return self.classes[-1] + 1

    def remarks(self, root: Path) -> tuple[str, ...]:
        """What to tell of masks that leave out half of the classes or more, as those of grey levels do."""
        count = self.classes[-1] + 1
        if 2 * len(self.classes) > count:
            return ()
        shown = ", ".join(map(str, self.classes[:_NAMED])) + (", ..." if len(self.classes) > _NAMED else "")
        return (
            f"The masks of '{root}' have {len(self.classes)} of the classes 0 to {count - 1} ({shown}), and the "
            f"network tells all {count} apart; if these are levels of grey, number the classes from 0 instead.",
        )


def read_mask(file: Path) -> Any:
    """A ``PIL.Image`` with one number for each pixel.

    Raises:
        DataError: the file is missing or no image, has several channels, or a format that does not keep numbers.
    """
    with open_image(file) as mask:
        if mask.format == "JPEG":
            raise DataError(
                f"'{file}' is a JPEG, which does not keep the numbers of classes; write masks as PNG, from the source."
            )
        if mask.mode not in _MODES:
            raise DataError(
                f"'{file}' is an image of mode {mask.mode}; a mask has one channel with a class for every pixel, or a "
                f"palette. Convert it, or {CURE}."
            )
        mask.load()
    return mask.convert("I") if mask.mode == "I;16" else mask  # which cannot be resized everywhere


def look_at(files: Sequence[Path]) -> Seen:
    """Read all of these masks. Raises ``DataError`` as ``read_mask`` does."""

    def look(file: Path) -> tuple[list[int], tuple[int, int]]:
        mask = read_mask(file)
        values = np.array(mask)
        few = values.dtype.itemsize == 1
        found = np.flatnonzero(np.bincount(values.ravel())) if few else np.unique(values)
        return found.tolist(), (mask.height, mask.width)

    with ThreadPoolExecutor(max_workers=min(8, os.cpu_count() or 1)) as pool:
        seen = list(pool.map(look, files))
    values = {value for found, _ in seen for value in found}
    if values and min(values) < 0:
        file = next(file for file, (found, _) in zip(files, seen, strict=True) if min(found) < 0)
        raise DataError(f"'{file}' has the class {min(values)}; classes count from 0.")
    return Seen(tuple(sorted(values - {VOID})), VOID in values, frozenset(size for _, size in seen))


def common_size(files: Sequence[Path]) -> tuple[int, int] | None:
    """The height and width that all of these images have, if they do, by their headers."""
    sizes: set[tuple[int, int]] = set()
    for file in files:
        with open_image(file) as header:
            sizes.add((header.height, header.width))
        if len(sizes) > 1:
            return None
    return sizes.pop()
