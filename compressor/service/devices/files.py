"""Files that measurements need."""

from __future__ import annotations

from sqlalchemy import select
from sqlalchemy.orm import Session

from compressor.service.devices.tables import DeviceCommandRow


def files_in_use(session: Session) -> set[str]:
    """Hashes of the files of all measurements that are not done: they stay in the store."""
    rows = session.scalars(select(DeviceCommandRow.files).where(DeviceCommandRow.state != "done"))
    return {sha256 for files in rows for sha256 in files}
