"""ZIP archives that may be made to do harm."""

from __future__ import annotations

import stat
import struct
import zipfile
from pathlib import Path

from compressor.errors import DataError
from compressor.storage.reading import size_text

_DIRECTORY = 64 << 20
_END, _END64, _LOCATOR64 = b"PK\5\6", b"PK\6\6", b"PK\6\7"


def entries_of(file: Path, archive: zipfile.ZipFile, *, most: int, unpacked: int, cure: str) -> list[zipfile.ZipInfo]:
    """The files in an archive. Nothing of them has been read.

    Raises:
        DataError: too many, too large unpacked, encrypted, packed in a rare way, links, twice the same name, or a path
            that leads out of the folder.
    """
    found: list[zipfile.ZipInfo] = []
    names: set[str] = set()
    total = 0
    for entry in archive.infolist():
        if entry.is_dir() and not entry.file_size:
            _require_inside(file, entry.filename.rstrip("/"), cure)
            continue
        _require_inside(file, entry.filename, cure)
        mode = entry.external_attr >> 16
        if stat.S_IFMT(mode) not in (0, stat.S_IFREG):
            raise DataError(f"{file} holds {entry.filename[:100]!r}, which is a link or no file; {cure}.")
        if entry.flag_bits & 0x1:
            raise DataError(f"{file} is encrypted; {cure}.")
        if entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise DataError(f"{file} holds {entry.filename[:100]!r} packed in a way other than deflate; {cure}.")
        if entry.filename.lower() in names:
            raise DataError(f"{file} holds {entry.filename[:100]!r} twice; {cure}.")
        names.add(entry.filename.lower())
        total += entry.file_size
        if total > unpacked:
            raise DataError(f"{file} unpacked has more than {size_text(unpacked)}; {cure}.")
        found.append(entry)
        if len(found) > most:
            raise DataError(f"{file} holds more than {most:,} files; {cure}.")
    return found


def require_small_directory(file: Path, cure: str) -> None:
    """Refuse an archive whose list of files would not fit into memory, before it is read. Raises ``DataError``."""
    size = file.stat().st_size
    with file.open("rb") as stream:
        stream.seek(max(0, size - (1 << 16) - 22 - 20 - 56))
        tail = stream.read()
    end = tail.rfind(_END)
    if end < 0 or len(tail) < end + 22:
        raise DataError(f"{file} is no ZIP archive; {cure}.")
    (directory,) = struct.unpack_from("<L", tail, end + 12)
    if end >= 20 and tail[end - 20 : end - 16] == _LOCATOR64:
        at = tail.rfind(_END64, 0, end)
        if at < 0 or len(tail) < at + 48:
            raise DataError(f"{file} is a ZIP archive without an end; {cure}.")
        (directory,) = struct.unpack_from("<Q", tail, at + 40)
    if directory > _DIRECTORY:
        raise DataError(f"{file} lists more files than an upload may hold; {cure}.")


def _require_inside(file: Path, name: str, cure: str) -> None:
    parts = name.split("/")
    is_plain = name.isprintable() and "\\" not in name and ":" not in parts[0] and len(name) <= 500
    if not is_plain or any(part in ("", ".", "..") for part in parts):
        raise DataError(f"{file} holds {name[:100]!r}, no name within a folder; {cure}.")
