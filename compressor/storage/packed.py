"""Data files that may be damaged or made to do harm: what they announce is held against what they have.

A small packed file can stand for a very large one. Packed data may be up to 100 times as large as its file, or 256 MB;
more is no data set. Arrays must announce exactly what follows.
"""

from __future__ import annotations

import gzip
import math
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import numpy as np

from compressor.errors import DataError
from compressor.storage.reading import opened, parsing, require_file, require_memory_for, size_text

_LARGEST = 256 << 20
_PACKED = 100


@contextmanager
def open_arrays(file: Path, cure: str = "fetch it again") -> Iterator[Any]:
    """The arrays of an ``.npz`` file by name. Raises ``DataError`` for one that is damaged, or larger than it says."""
    size = require_file(file, cure, kind=DataError)
    with parsing(file, "readable .npz of plain number arrays", cure, kind=DataError):
        with zipfile.ZipFile(file) as archive:
            needed = sum(entry.file_size for entry in archive.infolist())
            _require_plausible(file, size, needed, cure)
            for entry in archive.infolist():
                if entry.filename.endswith(".npy"):
                    _require_announced(archive, entry)
        with np.load(file, allow_pickle=False) as arrays:
            if not hasattr(arrays, "files"):
                raise ValueError("it holds one array without a name")
            yield arrays


def _require_announced(archive: zipfile.ZipFile, entry: zipfile.ZipInfo) -> None:
    with archive.open(entry) as stream:
        shape, dtype = read_header(stream)
        if dtype.hasobject:
            raise ValueError(f"{entry.filename} holds objects")
        announced = math.prod(shape) * dtype.itemsize
        if announced != entry.file_size - stream.tell():
            raise ValueError(
                f"{entry.filename} announces {announced:,} bytes and has {entry.file_size - stream.tell():,}"
            )


def read_header(stream: IO[bytes]) -> tuple[tuple[int, ...], np.dtype[Any]]:
    """Shape and type of the array in an ``.npy`` stream, which is then where its numbers begin."""
    version = np.lib.format.read_magic(stream)
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, _, dtype = read(stream)
    return shape, dtype


def read_gzip(file: Path, cure: str = "fetch it again") -> bytes:
    """The content of a file packed by gzip. Raises ``DataError``."""
    size = require_file(file, cure, kind=DataError)
    limit = max(_LARGEST, _PACKED * size)
    with parsing(file, "readable gzip file", cure, kind=DataError), gzip.open(file) as stream:
        parts, total = [], 0
        while part := stream.read(1 << 22):
            total += len(part)
            if total > limit:
                raise ValueError(f"unpacked it has more than {size_text(limit)}")
            parts.append(part)
    return b"".join(parts)


def read_plain(file: Path, cure: str = "fetch it again") -> bytes:
    """All of a file. Raises ``DataError`` for what is no file, or does not fit into memory."""
    require_memory_for(file, 2 * require_file(file, cure, kind=DataError), cure, kind=DataError)
    with opened(file, cure, kind=DataError) as stream:
        return stream.read()


def _require_plausible(file: Path, size: int, needed: int, cure: str) -> None:
    if needed > max(_LARGEST, _PACKED * size):
        raise DataError(
            f"'{file}' has {size_text(size)} and unpacked {size_text(needed)}, which is no data set; {cure}."
        )
    require_memory_for(file, needed, cure, kind=DataError)
