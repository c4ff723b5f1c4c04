"""Keeps the folder of a job on the server: after each stage, every now and then, and at the end."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from compressor.errors import CompressorError
from compressor.service.records import FileRecord
from compressor.service.worker.errors import LeaseLostError, StoppedError
from compressor.service.worker.folder import Snapshots
from compressor.service.worker.launch import Running
from compressor.service.worker.limits import Limits
from compressor.service.worker.link import Claimed, Link, Patience
from compressor.service.worker.listening import Listening

Say = Callable[[str], None]


class Storing:
    """Stores the folder of one job.

    Args:
        folder: of the job; its ``result`` is what is stored.
        patience: of what has to be stored.
        seconds: how often it is stored while a stage goes on.
    """

    def __init__(
        self, claimed: Claimed, link: Link, folder: Path, limits: Limits, patience: Patience, say: Say, seconds: float
    ) -> None:
        self._claimed, self._link, self._say, self._seconds = claimed, link, say, seconds
        self._patience = patience
        self._snapshots = Snapshots(folder / "result", folder.with_name(folder.name + ".staging"), limits)
        self.former_log = ""

    def store(
        self,
        running: Running,
        *,
        within: float | None = None,
        patience: Patience | None = None,
    ) -> None:
        """Store the folder as it is now.

        Args:
            within: seconds that each request may be tried for.

        Raises:
            LeaseLostError: the job is another's. StoppedError: the server was away for too long.
            RequestRefusedError: it takes no more. LimitError: there are too many files. OSError.
        """
        link, claimed, patiently = self._link, self._claimed, patience or self._patience

        def put(sha256: str, place: Path, size: int) -> None:
            patiently(lambda: link.put_blob(sha256, place, size), within=within)

        def commit(files: list[FileRecord]) -> list[str]:
            return patiently(lambda: link.snapshot(claimed.id, claimed.token, files), within=within)

        log = self.former_log + running.log.text()
        self._snapshots.take(_held_still(running), put, commit, log=log)

    @contextmanager
    def meanwhile(self, running: Running, listening: Listening) -> Iterator[None]:
        """Inside, the folder is stored after each stage, and every now and then."""
        stop = threading.Event()
        name = "snapshots of a job"
        thread = threading.Thread(target=lambda: self._keep(running, listening, stop), name=name, daemon=True)
        thread.start()
        try:
            yield
        finally:
            stop.set()
            listening.stage_ended.set()  # which it waits for
            thread.join()

    def _keep(self, running: Running, listening: Listening, stop: threading.Event) -> None:
        def require_use() -> None:
            if stop.is_set():
                raise StoppedError("the job's process has ended")

        patience = Patience(require_use, self._say)
        while not stop.is_set():
            listening.stage_ended.wait(self._seconds)
            listening.stage_ended.clear()
            if stop.is_set() or listening.ended.is_set():
                return
            try:
                self.store(running, patience=patience)
            except (LeaseLostError, StoppedError):
                return
            except (CompressorError, OSError) as error:
                self._say(f"The job's folder is not stored this time ({error}).")


@contextmanager
def _held_still(running: Running) -> Iterator[None]:
    """Inside, no process of the job writes anything."""
    stopped = running.group.stop() if running.exit_code() is None else []
    try:
        yield
    finally:
        running.group.go_on(stopped)
