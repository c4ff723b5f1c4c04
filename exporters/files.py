"""Files that appear complete or not at all."""

from __future__ import annotations

import os
import shutil
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from exporters.errors import ExporterError


@contextmanager
def staged(path: Path) -> Iterator[Path]:
    """Yield a path of the same name in a fresh folder beside ``path``; on success move what lies there into place.

    Several files may be written there (a graph and its weights); ``path`` itself is moved last, so whoever sees it
    sees all of it. On any error nothing outside the fresh folder was touched, and that folder is removed.
    """
    try:
        _refuse_special(path)
        folder, name = path.resolve().parent, path.name
        folder.mkdir(parents=True, exist_ok=True)
        # The name tells whoever tidies up whose it is.
        staging = Path(tempfile.mkdtemp(prefix=f".{name[:20]}.{os.getpid()}-", suffix=".tmp", dir=folder))
    except OSError as error:
        raise write_error(path, error) from error
    try:
        yield staging / path.name
        others = sorted(entry for entry in staging.iterdir() if entry.name != path.name)
        for entry in [*others, staging / path.name]:
            target = path.resolve() if entry.name == path.name else folder / entry.name
            _refuse_special(target)
            if target.exists():
                entry.chmod(stat.S_IMODE(target.stat().st_mode))
            os.replace(entry, target)
    except OSError as error:
        raise write_error(path, error) from error
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def _refuse_special(path: Path) -> None:
    """A folder, a device, a pipe or a link to nothing is never replaced."""
    if path.is_symlink() and not path.exists():
        raise ExporterError(f"Cannot write {path}: it is a symbolic link to nothing; delete it or name another file.")
    if path.exists() and not path.is_file():
        raise ExporterError(f"Cannot write {path}: something is there that is no file; name another file.")


def write_error(path: Path, error: OSError) -> ExporterError:
    """A one-line error for a file that could not be written."""
    reason = error.strerror or str(error)
    return ExporterError(f"Cannot write {path}: {reason}. Free some space or choose another folder.")


def total_bytes(files: tuple[Path, ...]) -> int:
    """Size of all ``files`` together."""
    return sum(file.stat().st_size for file in files)
