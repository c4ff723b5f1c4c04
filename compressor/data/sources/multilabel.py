"""Images with any number of labels each, from tables beside them: ``DIR/train.csv``, likewise ``val`` and ``test``.

The first column names an image, relative to the table, to ``images`` beside it or to a folder of the split's name. The
others have a label each, 0 or 1 (also 0.0 and 1.0, false and true); or there is one other column with the names of
those that apply, between spaces, semicolons, bars or, in quotes, commas.
"""

from __future__ import annotations

import csv
import io
import re
from pathlib import Path

import torch
from torch import Tensor

from compressor.data.base import Data
from compressor.data.decoding import Loading
from compressor.data.folders import is_there, learned_by_heart, parts_in
from compressor.data.holdout import stratified_holdout
from compressor.data.sources.imagefolder import DEFAULT_SIZE, ImageFolderSplit
from compressor.data.task import Task
from compressor.errors import DataError
from compressor.storage.reading import MEGABYTE, parsing, read_bytes, require_memory_for

_MOST = 256 * MEGABYTE
_CURE = "expected a first line image,label,label,... and a line with an image and 0 or 1 for each label below"
_BETWEEN = re.compile(r"[\s;|,]+")
_APPLIES = {"0": False, "1": True, "0.0": False, "1.0": True, "false": False, "true": True}
"""What other programs write for 0 and 1, in any case."""
Rows = list[tuple[Path, tuple[str, ...]]]


def load(argument: str, image_size: int | None = None, loading: Loading | None = None) -> Data:
    """A folder with ``train.csv``, and ``val.csv`` and ``test.csv`` where there are any.

    Labels are the columns of ``train.csv`` in their order, or the names that occur there, sorted.

    Raises:
        DataError: a table is missing, names images that are not there, or has anything but 0 and 1.
    """
    root = Path(argument)
    if not root.is_dir():
        raise DataError(f"Data folder '{root}' does not exist; expected train.csv in it.")
    files = parts_in(root, ".csv")
    if not files:
        raise DataError(f"'{root}' has no train.csv; {_CURE}.")
    tables = {part: _read(root, file) for part, file in files.items()}
    names = _names(files["train"], *tables["train"])
    samples = {part: _samples(files[part], *table, names) for part, table in tables.items()}
    if "val" not in samples:
        kept, held = stratified_holdout(torch.zeros(len(samples["train"])))
        samples["val"] = [samples["train"][int(i)] for i in held]
        samples["train"] = [samples["train"][int(i)] for i in kept]
    remarks = learned_by_heart({part: [file for file, _ in each] for part, each in samples.items()})
    size = image_size or DEFAULT_SIZE
    splits = {part: ImageFolderSplit(each, size, loading) for part, each in samples.items()}
    example = next(iter(ImageFolderSplit(samples["val"][:1], size).batches(1)))[0]
    task = Task("multilabel", outputs=len(names))
    name = f"multilabel:{argument}"
    return Data(name, splits["train"], splits["val"], splits.get("test"), len(names), example, task, remarks=remarks)


def _read(root: Path, file: Path) -> tuple[list[str], Rows]:
    """The names of the columns of labels, and the rows."""
    content = read_bytes(file, _CURE, limit=_MOST, kind=DataError)
    require_memory_for(file, 20 * len(content), _CURE, kind=DataError)
    with parsing(file, "table of comma-separated values", _CURE, kind=DataError):
        lines = [line for line in csv.reader(io.StringIO(content.decode("utf-8-sig")), strict=True) if line]
    if len(lines) < 2:
        raise DataError(f"'{file}' has {len(lines)} line{'s' * (len(lines) != 1)}; {_CURE}.")
    if len(lines[0]) < 2:
        raise DataError(f"'{file}' has one column, {lines[0][0]!r}, and commas are between columns; {_CURE}.")
    header = [name.strip() for name in lines[0]]
    rows: Rows = []
    folders = (root, root / "images", root / file.stem, root / file.stem / "images")
    if any(is_there(folder / header[0]) for folder in folders if header[0]):
        raise DataError(f"'{file}' begins with the image '{header[0]}' and has no first line of names; {_CURE}.")
    for number, line in enumerate(lines[1:], start=2):
        if len(line) != len(header):
            raise DataError(
                f"'{file}' has {len(line)} columns in row {number}, and {len(header)} in the first; {_CURE}."
            )
        image = next((place for folder in folders if is_there(place := folder / line[0].strip())), None)
        if image is None:
            raise DataError(
                f"'{file}' names the image '{line[0].strip()}' in row {number}, which is neither in '{root}' nor in "
                f"images/ or {file.stem}/ there; add it, or remove the row."
            )
        rows.append((image, tuple(value.strip() for value in line[1:])))
    return header[1:], rows


def _is_listed(columns: list[str], rows: Rows) -> bool:
    """Whether the one column names the labels that apply."""
    return len(columns) == 1 and not all(values[0].casefold() in _APPLIES for _, values in rows)


def _names(file: Path, columns: list[str], rows: Rows) -> list[str]:
    names = columns
    if _is_listed(columns, rows):
        names = sorted({name for _, (text,) in rows for name in _BETWEEN.split(text) if name})
    if len(set(names)) < max(2, len(names)):
        raise DataError(f"'{file}' has the labels {', '.join(names) or 'none'}; expected two or more different ones.")
    return names


def _samples(file: Path, columns: list[str], rows: Rows, names: list[str]) -> list[tuple[Path, Tensor]]:
    listed = len(columns) == 1
    if not listed and columns != names:
        raise DataError(
            f"'{file}' has the labels {', '.join(columns)}, train.csv has {', '.join(names)}; they must be the same."
        )
    found = []
    for number, (image, values) in enumerate(rows, start=2):
        applies = _listed(file, number, values[0], names) if listed else _told(file, number, values)
        found.append((image, torch.tensor(applies, dtype=torch.float32)))
    return found


def _listed(file: Path, number: int, text: str, names: list[str]) -> list[bool]:
    there = {name for name in _BETWEEN.split(text) if name}
    if strange := sorted(there - set(names)):
        raise DataError(f"'{file}' has the label {strange[0]!r} in row {number}, which no row of train.csv has.")
    return [name in there for name in names]


def _told(file: Path, number: int, values: tuple[str, ...]) -> list[bool]:
    if strange := [value for value in values if value.casefold() not in _APPLIES]:
        raise DataError(f"'{file}' has {strange[0]!r} in row {number}; a label applies (1) or does not (0).")
    return [_APPLIES[value.casefold()] for value in values]
