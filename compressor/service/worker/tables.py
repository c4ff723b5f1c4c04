"""The latency table of the worker's machine: a job gets a copy, and what it measured comes back.

A job has no way to the table itself, so that none can spoil it for others.
"""

from __future__ import annotations

import logging
import sqlite3
from contextlib import closing
from pathlib import Path

from lut import LutError, default_path

_log = logging.getLogger(__name__)
PLACE = "cache/compressor/lut.sqlite"
"""Where a job finds its copy, as seen from its folder: the default place of its own cache."""


def lend(folder: Path) -> None:
    """Copy the table into a job's folder. Without one, the job begins with none."""
    source = default_path()
    if not source.is_file():
        return
    place = folder / PLACE
    place.parent.mkdir(parents=True, exist_ok=True)
    try:
        with (
            closing(sqlite3.connect(f"file:{source}?mode=ro", uri=True)) as there,
            closing(sqlite3.connect(place)) as here,
        ):
            there.backup(here)
    except sqlite3.Error as error:
        place.unlink(missing_ok=True)
        _log.warning("The latency table %s cannot be copied (%s); the job measures anew.", source, error)


def take_back(folder: Path) -> None:
    """Put what a job measured into the table."""
    place = folder / PLACE
    if not place.is_file() or place.is_symlink():
        return
    from lut import LatencyTable
    from lut.table.share import merge

    try:
        with LatencyTable() as table:
            merge(table, [place])
    except (LutError, OSError) as error:
        _log.warning("What the job measured cannot be kept (%s).", error)
