"""One job of a service: how it stands, what happens, what it made."""

from __future__ import annotations

import os
import uuid
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

from compressor.errors import UsageError
from compressor.options import shown
from compressor.pipeline.events import Listener
from compressor.service.client.connection import Connection
from compressor.service.client.downloads import RemoteFile, fetch, remote_files
from compressor.service.client.errors import job_error
from compressor.service.client.stream import PATIENCE_S, JobEvent, job_events
from compressor.service.client.told import Teller


def _nobody(text: str) -> None:
    """Whom lines are told that nobody asked for."""


class Job:
    """A handle on a job; nothing is asked before a method is called. Documents are those of the API.

    Every method raises ``ServerAwayError`` where no answer comes, and the service's own refusals
    (``NotFoundError``, ``ForbiddenError``, ``ConflictError``, ...).

    Attributes:
        id: what the service calls it.
    """

    def __init__(self, connection: Connection, id: str) -> None:
        if not isinstance(id, str) or not id.strip() or not id.isprintable():
            raise UsageError(f"A job has an id, which compress status lists, not {shown(id)}.")
        self._connection, self.id = connection, id
        self._path = f"/jobs/{quote(id, safe='')}"

    def __repr__(self) -> str:
        return f"Job({self.id!r} at {self._connection.url})"

    def status(self) -> dict[str, Any]:
        """Its document: ``state``, ``progress``, ``costs``, ``error``, times and so on."""
        return self._connection.document("GET", self._path)

    def events(
        self,
        after: str | int | None = None,
        *,
        patience_s: float = PATIENCE_S,
        broken: Callable[[str], None] | None = None,
    ) -> Iterator[JobEvent]:
        """What happened to it and what happens, from the beginning to its end, also across broken connections.

        Args:
            after: the id of the last event that is known.
            patience_s: seconds without any answer after which ``ServerAwayError`` is raised.
            broken: is told, in a line, when a connection breaks and another is tried.
        """
        known = None if after is None else str(after)
        return job_events(self._connection, f"{self._path}/events", after=known, patience_s=patience_s, broken=broken)

    def wait(
        self,
        listener: Listener | None = None,
        *,
        patience_s: float = PATIENCE_S,
        broken: Callable[[str], None] | None = None,
    ) -> dict[str, Any]:
        """Follow it to its end and return its document.

        Args:
            listener: is told what happens, as that of a job on this machine (``compressor.pipeline.events``).

        Raises:
            CompressorError: the job failed, with the class of its error where it ran; ``JobCancelledError``.
        """
        teller = None if listener is None else Teller(listener)
        try:
            for event in self.events(patience_s=patience_s, broken=broken):
                if teller is not None:
                    teller.tell(event.kind, event.body)
        finally:
            if teller is not None:
                teller.close()
        job = self.status()
        if (error := job_error(job)) is not None:
            raise error
        return job

    def report(self) -> dict[str, Any]:
        """The report of a job, or the front of a sweep, as ``compress --format json`` prints it."""
        return self._connection.document("GET", f"{self._path}/report")

    def files(self) -> list[RemoteFile]:
        """What it has written so far."""
        return remote_files(self._connection.document("GET", f"{self._path}/files"))

    def fetch(
        self,
        out: str | os.PathLike[str],
        names: Collection[str] | None = None,
        *,
        force: bool = False,
        told: Callable[[str], None] = _nobody,
    ) -> list[Path]:
        """Download its files into a folder, which is then as one that ``compress`` wrote: ``compressor.load`` takes it.

        What is there already is not fetched again, and what was broken off is gone on with.

        Args:
            names: of the files; None takes all.
            force: replace files that are there with other content.

        Raises:
            UsageError: there is no such file, or a file with other content is in the way.
        """
        files: Sequence[RemoteFile] = self.files()
        if names is not None:
            there = {file.path: file for file in files}
            if (missing := next((name for name in names if name not in there), None)) is not None:
                raise UsageError(
                    f"Job {self.id} has no file {shown(missing)}; it has {', '.join(sorted(there)) or 'none'}."
                )
            files = [there[name] for name in dict.fromkeys(names)]
        if not files:
            raise UsageError(f"Job {self.id} has written nothing yet; compress status {self.id} says how it stands.")
        return fetch(self._connection, self.id, files, Path(out), force=force, told=told)

    def cancel(self) -> dict[str, Any]:
        """Ask for its end; one that runs is stopped within seconds."""
        return self._connection.document("POST", f"{self._path}/cancel")

    def retry(self) -> dict[str, Any]:
        """Queue it again, after it failed or was cancelled; it goes on from its last stage."""
        return self._connection.document("POST", f"{self._path}/retry", again=False)

    def pick(
        self, budgets: Mapping[str, Any], *, export: Sequence[str] | None = None, target: str | None = None
    ) -> Job:
        """A job that takes the best network within other budgets from what a sweep left, without training."""
        asked: dict[str, Any] = {"budgets": dict(budgets)}
        asked |= {} if export is None else {"export": list(export)}
        asked |= {} if target is None else {"target": target}
        headers = {"Idempotency-Key": uuid.uuid4().hex}
        made = self._connection.document("POST", f"{self._path}/pick", json=asked, headers=headers)
        return Job(self._connection, made.get("id", ""))
