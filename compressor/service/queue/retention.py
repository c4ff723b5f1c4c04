"""What goes with time: ended jobs, abandoned uploads, contents that nothing refers to."""

from __future__ import annotations

from dataclasses import dataclass

from compressor.service.artefacts.blobs import Blobs
from compressor.service.artefacts.uploads import Uploads
from compressor.service.clock import Clock
from compressor.service.database.engine import Database
from compressor.service.settings import ServiceSettings


@dataclass(frozen=True)
class Removed:
    """How many of each are gone."""

    jobs: int = 0
    uploads: int = 0
    blobs: int = 0


class Retention:
    """Deletes what is past its time."""

    def __init__(
        self, database: Database, settings: ServiceSettings, clock: Clock, blobs: Blobs, uploads: Uploads
    ) -> None:
        raise NotImplementedError

    def sweep(self) -> Removed:
        """Delete ended jobs after ``keep_days``, uploads that nobody goes on with or needs, and then contents."""
        raise NotImplementedError
