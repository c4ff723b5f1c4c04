"""Images of an upload: a zip of class folders, unpacked with a bound on everything that an archive can lie about."""

from __future__ import annotations

import stat
import zipfile
from collections import Counter
from pathlib import Path, PurePosixPath

from compressor.errors import DataError
from compressor.service.worker.limits import shown_bytes
from compressor.storage.pictures import SUFFIXES, is_hidden

MOST_FILES = 2_000_000
_PIECE = 1 << 20


def unpack_images(
    archive: Path, folder: Path, *, most_bytes: int, most_files: int = MOST_FILES, most_each: int | None = None
) -> int:
    """Unpack the images in a zip into ``folder``; returns how many. What is no image by its name is left out.

    Args:
        most_each: of each folder the first so many alone; None: all.

    Raises:
        DataError: it is no zip, leads out of the folder, or holds more than ``most_files`` or ``most_bytes``.
    """
    count = written = 0
    each: Counter[PurePosixPath] = Counter()
    try:
        with zipfile.ZipFile(archive) as file:
            entries = file.infolist()
            if len(entries) > most_files:
                raise DataError(f"The archive has {len(entries)} entries; {most_files} are the most.")
            for entry in entries:
                place = _place(entry)
                if place is None:
                    continue
                each[place.parent] += 1
                if most_each is not None and each[place.parent] > most_each:
                    continue
                target = folder.joinpath(*place.parts)
                target.parent.mkdir(parents=True, exist_ok=True)
                with file.open(entry) as source, target.open("xb") as out:
                    while piece := source.read(_PIECE):  # what the archive says of sizes is not believed
                        written += len(piece)
                        if written > most_bytes:
                            raise DataError(
                                f"The archive unpacks to more than {shown_bytes(most_bytes)}, the most of this worker."
                            )
                        out.write(piece)
                count += 1
    except FileExistsError as error:
        raise DataError(f"The archive has {Path(str(error.filename)).name!r} twice.") from error
    except (zipfile.BadZipFile, zipfile.LargeZipFile, NotImplementedError, RuntimeError, EOFError, OSError) as error:
        raise DataError(f"The archive cannot be unpacked ({' '.join(str(error).split())[:200]}).") from error
    if not count:
        raise DataError("The archive has no images; expected CLASS/NAME.jpg or train/CLASS/NAME.jpg in it.")
    return count


def _place(entry: zipfile.ZipInfo) -> PurePosixPath | None:
    """Where an image goes; None for what is none. Raises ``DataError`` for a path that leads elsewhere."""
    path = PurePosixPath(entry.filename.replace("\\", "/"))
    if path.is_absolute() or ".." in path.parts or "\0" in entry.filename or ":" in entry.filename:
        raise DataError(f"The archive has {entry.filename[:80]!r}, which leads out of its folder.")
    kind = stat.S_IFMT(entry.external_attr >> 16)
    if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
        raise DataError(f"The archive has {entry.filename[:80]!r}, which is no file; links are not taken.")
    if entry.is_dir() or path.suffix.lower() not in SUFFIXES or is_hidden(path):
        return None
    return path
