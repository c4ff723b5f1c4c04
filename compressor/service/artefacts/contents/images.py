"""Images: a ZIP archive of ``CLASS/name.jpg``, or of ``train/CLASS/name.jpg`` and the like."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path, PurePosixPath

from compressor.errors import DataError
from compressor.service.artefacts.contents.archives import entries_of, require_small_directory
from compressor.storage.pictures import MOST_BYTES, SUFFIXES, is_hidden, read_header
from compressor.storage.reading import parsing, size_text

MOST_IMAGES = 300_000
_CURE = "send a ZIP of class folders with nothing but images in them"
_HEADER = 1 << 16
_PACKED = 200  # an image hardly packs; a file of zeros does


def check_images(file: Path, unpacked: int) -> None:
    """Refuse an archive with anything but images in it, by name and by what their headers say; hidden files, which are
    not unpacked either, are no matter. Raises ``DataError``."""
    require_small_directory(file, _CURE)
    with parsing(file, "readable ZIP archive", _CURE, kind=DataError), zipfile.ZipFile(file) as archive:
        found = entries_of(file, archive, most=MOST_IMAGES, unpacked=unpacked, cure=_CURE)
        entries = [entry for entry in found if not is_hidden(PurePosixPath(entry.filename))]
        if not entries:
            raise DataError(f"{file} holds no images; {_CURE}.")
        for entry in entries:
            _check(file, archive, entry)


def _check(file: Path, archive: zipfile.ZipFile, entry: zipfile.ZipInfo) -> None:
    path = PurePosixPath(entry.filename)
    if path.suffix.lower() not in SUFFIXES:
        raise DataError(
            f"{file} holds {entry.filename[:100]!r}, no image by its name ({', '.join(sorted(SUFFIXES))}); {_CURE}."
        )
    if len(path.parts) < 2:
        raise DataError(f"{file} holds {entry.filename[:100]!r} in no class folder; {_CURE}.")
    if entry.file_size > MOST_BYTES or entry.file_size > max(1 << 20, _PACKED * entry.compress_size):
        raise DataError(f"{file} holds {entry.filename[:100]!r} of {size_text(entry.file_size)} unpacked; {_CURE}.")
    with parsing(entry.filename[:100], "readable image", _CURE, kind=DataError):
        with archive.open(entry) as stream:
            start = stream.read(_HEADER)
        try:
            with read_header(io.BytesIO(start)):
                return
        except Exception:  # a header may be longer, or stand at the end
            if len(start) == entry.file_size:
                raise
        with archive.open(entry) as stream, read_header(io.BytesIO(stream.read())):
            pass
