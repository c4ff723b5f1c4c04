"""What a project has stored, and whether it may store more."""

from __future__ import annotations

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from compressor.service.database.tables import FileRow, JobRow, UploadRow
from compressor.service.errors import QuotaError
from compressor.storage.reading import size_text


def stored_bytes(session: Session, project: str) -> int:
    """Files of the project's jobs, and its uploads: those under way count with all that they announced."""
    uploads = select(func.coalesce(func.sum(UploadRow.bytes), 0)).where(
        UploadRow.project == project, UploadRow.state != "refused"
    )
    files = (
        select(func.coalesce(func.sum(FileRow.bytes), 0))
        .join(JobRow, JobRow.id == FileRow.job_id)
        .where(JobRow.project == project)
    )
    return int(session.scalar(uploads) or 0) + int(session.scalar(files) or 0)


def require_room(session: Session, project: str, size: int, most: int | None) -> None:
    """Refuse ``size`` more bytes where the project may have ``most``. Raises ``QuotaError``."""
    if most is None:
        return
    stored = stored_bytes(session, project)
    if stored + size > most or stored >= most:
        raise QuotaError(
            f"Project {project} has stored {size_text(stored)} and may store {size_text(most)}; "
            f"{f'{size_text(size)} more do not fit. D' if size else 'd'}elete jobs or uploads that nobody needs."
        )
