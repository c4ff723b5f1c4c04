"""Arrays: an ``.npz`` of numbers, no pickles."""

from __future__ import annotations

import zipfile
from pathlib import Path

from compressor.errors import DataError
from compressor.service.artefacts.contents.archives import entries_of, require_small_directory
from compressor.storage.packed import open_arrays, read_header
from compressor.storage.reading import parsing

_CURE = "write x_train, y_train, x_test and y_test with numpy.savez"
_NAMES = {f"{letter}_{part}.npy" for letter in "xy" for part in ("train", "val", "test")}
_CHUNK = 1 << 20


def check_arrays(file: Path, unpacked: int) -> None:
    """Refuse what is no ``.npz`` of the arrays that data sets are made of, read to its end. Raises ``DataError``."""
    require_small_directory(file, _CURE)
    with parsing(file, "readable .npz file", _CURE, kind=DataError), zipfile.ZipFile(file) as archive:
        entries = entries_of(file, archive, most=len(_NAMES), unpacked=unpacked, cure=_CURE)
        names = {entry.filename for entry in entries}
        if other := sorted(names - _NAMES):
            raise DataError(f"{file} holds {other[0][:100]!r}, none of {', '.join(sorted(_NAMES))}; {_CURE}.")
        if not {"x_train.npy", "y_train.npy"} <= names:
            raise DataError(f"{file} lacks x_train or y_train; {_CURE}.")
    with open_arrays(file, _CURE):  # headers: no objects, and exactly as many bytes as they announce
        pass
    with parsing(file, "undamaged .npz file", _CURE, kind=DataError), zipfile.ZipFile(file) as archive:
        for entry in entries:
            with archive.open(entry) as stream:
                _, dtype = read_header(stream)
                if dtype.kind not in "biuf":
                    cure = (
                        "numpy.unique(names, return_inverse=True)[1] numbers classes" if dtype.kind in "US" else _CURE
                    )
                    raise DataError(f"{file} holds {entry.filename!r} of type {dtype}; expected numbers; {cure}.")
                while stream.read(_CHUNK):  # to the checksum at its end
                    pass
