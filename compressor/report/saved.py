"""A report that is on disk."""

from __future__ import annotations

from pathlib import Path

from compressor.errors import UsageError
from compressor.report.records import Report
from compressor.storage.reading import read_json


def read_report(place: Path) -> Report:
    """The report in a folder that compress wrote, or in a file. Raises ``UsageError`` if there is none."""
    file = place / "report.json" if place.is_dir() else place
    content = read_json(file, "give a folder that compress wrote")
    try:
        return Report.from_json(content)
    except UsageError as error:
        raise UsageError(f"{file}: {error}") from error
