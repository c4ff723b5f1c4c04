"""Folders of a data set: which of them has the samples of which part."""

from __future__ import annotations

from pathlib import Path

from compressor.errors import DataError

PART_NAMES = {"train": ("train", "training"), "val": ("val", "valid", "validation"), "test": ("test", "testing")}
"""What folders, and files without their suffix, of a part are called; in any case."""


def parts_in(root: Path, suffix: str = "") -> dict[str, Path]:
    """What of ``root`` belongs to ``train``, ``val`` and ``test``: folders, or files with this suffix. Empty where
    there is nothing of any part.

    Raises:
        DataError: two for one part, or parts without ``train``, which would be taken for something else.
    """
    found: dict[str, Path] = {}
    for path in sorted(root.iterdir()):
        if not (path.is_file() and path.suffix.lower() == suffix if suffix else path.is_dir()):
            continue
        name = (path.stem if suffix else path.name).lower()
        part = next((part for part, names in PART_NAMES.items() if name in names), None)
        if part is None:
            continue
        if part in found:
            raise DataError(f"'{root}' has {found[part].name} and {path.name}, both for {part}; leave one.")
        found[part] = path
    if found and "train" not in found:
        there = ", ".join(path.name for path in found.values())
        raise DataError(f"'{root}' has {there} and no train{suffix}; name what is to be trained on 'train{suffix}'.")
    return found
