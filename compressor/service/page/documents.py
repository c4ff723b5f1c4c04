"""What lies in the folder of a job, read for the page: reports and fronts. Workers may write anything into these, so
both are read as data that cannot be trusted."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

from compressor.errors import UsageError
from compressor.report import Report
from compressor.service.page import fronts
from compressor.service.page.fronts import FrontView
from compressor.service.queue.files import Files
from compressor.service.records import FileRecord
from compressor.storage.reading import LARGE, parse_json

REPORT = "report.json"
MOST_BYTES = 32 << 20
"""Of a document that is read whole."""


def shown_files(files: Sequence[FileRecord]) -> list[FileRecord]:
    """Those that are for users: nothing below a dot folder, results before what they came of."""
    seen = [file for file in files if not any(part.startswith(".") for part in file.path.split("/"))]
    return sorted(seen, key=lambda file: (file.path.count("/"), file.path))


def paths(files: Sequence[FileRecord]) -> set[str]:
    """What there is."""
    return {file.path for file in files}


def load_report(files: Files, job_id: str, there: Collection[str], folder: str = "") -> Report | None:
    """The report of a job, or of a point of a sweep in ``folder``. None if there is none.

    Raises:
        UsageError: there is one that cannot be read.
    """
    path = f"{folder}/{REPORT}" if folder else REPORT
    return Report.from_json(_read(files, job_id, path)) if path in there else None


def load_fronts(files: Files, job_id: str, there: Collection[str]) -> list[FrontView]:
    """The fronts that a sweep or a search left; none if there are none. Raises ``UsageError``."""
    if fronts.FILE not in there:
        return []
    document = _read(files, job_id, fronts.FILE)
    found = fronts.read_front(document)
    search = fronts.search_of(document)
    left = f"{search}/{fronts.FILE}"
    if search is None or len(found) != 1 or left not in there:
        return found
    (networks,) = fronts.read_front(_read(files, job_id, left))
    return [found[0].beside(networks)]


def _read(files: Files, job_id: str, path: str) -> Any:
    record, stream = files.open(job_id, path)
    with stream:
        if record.bytes > MOST_BYTES:
            raise UsageError(f"{path} has {record.bytes:,} bytes, too many to be shown; download it instead.")
        data = stream.read(MOST_BYTES + 1)
    try:
        return parse_json(data, limits=LARGE)
    except ValueError as error:
        raise UsageError(f"{path} cannot be read: {error}.") from error
