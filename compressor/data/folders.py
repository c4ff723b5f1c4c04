"""Folders of a data set: which of them has the samples of which part."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
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


def is_there(path: Path) -> bool:
    """Whether there is such a file; what can be no name of one is not."""
    try:
        return path.is_file()
    except (OSError, ValueError):  # too long, or with a zero byte
        return False


def learned_by_heart(files: Mapping[str, Iterable[Path]]) -> tuple[str, ...]:
    """What to tell where files of ``val`` or ``test`` are among those of ``train``; a line each."""
    trained = set(files["train"])
    found = {part: sorted(trained.intersection(files[part])) for part in ("val", "test") if part in files}
    return tuple(
        f"{len(both):,} image{'s' * (len(both) != 1)} of {part} {'are' if len(both) != 1 else 'is'} in train, too (the "
        f"first: {both[0]}); what is scored on images that were learned says little about others."
        for part, both in found.items()
        if both
    )
