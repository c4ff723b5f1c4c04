"""Fetch what a job wrote: files by ranges, checked against their SHA-256, each there whole or not at all."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

from compressor.errors import CompressorError, UsageError
from compressor.options import shown
from compressor.service.client import connection as http
from compressor.service.client.connection import Connection
from compressor.service.client.errors import ServerAwayError
from compressor.storage.files import made_folder, storage_errors

PARTS = ".fetching"
"""The folder of what is not whole yet, inside the one that is fetched to."""
_TRIES = 6


@dataclass(frozen=True)
class RemoteFile:
    """A file of a job: ``path`` is relative, with ``/``; ``sha256`` is hexadecimal."""

    path: str
    sha256: str
    bytes: int


def remote_files(document: Mapping[str, Any]) -> list[RemoteFile]:
    """The files that a service lists. Raises ``CompressorError`` for a name that leads elsewhere."""
    listed = document.get("files")
    found = []
    for each in listed if isinstance(listed, list) else []:
        try:
            file = RemoteFile(str(each["path"]), str(each["sha256"]), int(each["bytes"]))
        except (TypeError, KeyError, ValueError) as error:
            raise CompressorError(
                "The service lists files in a form that is not known here; update one of both."
            ) from error
        parts = file.path.split("/")
        # What no service of ours would say: a name that is no plain one on any system.
        plain = all(
            part and part.strip(". ") and not set(part) & set('\\:*?"<>|') and part.isprintable() for part in parts
        )
        if not plain or len(file.sha256) != 64 or set(file.sha256) - set("0123456789abcdef"):
            raise CompressorError(f"The service lists a file under a name that is not taken: {shown(file.path)}.")
        found.append(file)
    return found


def fetch(
    connection: Connection,
    job: str,
    files: Sequence[RemoteFile],
    out: Path,
    *,
    force: bool = False,
    told: Callable[[str], None] = lambda text: None,
) -> list[Path]:
    """Download files into a folder; those that are there already are not fetched again.

    What was fetched of a file when it was broken off stays in ``out/.fetching``, and is gone on with.

    Args:
        job: the id.
        force: replace files that are there and differ.

    Raises:
        UsageError: a file with other content is there. CompressorError: one cannot be written, or arrives damaged.
    """
    with made_folder(out), storage_errors(out):
        root = out.resolve()
        missing = []
        for file in files:
            target = out / file.path
            if not target.parent.resolve().is_relative_to(root):
                raise UsageError(f"{target.parent} leads out of {out}; fetch into an empty folder.")
            if target.is_symlink() or (target.exists() and not target.is_file()):
                raise UsageError(f"{target} is no file; fetch into an empty folder.")
            if target.is_file() and target.stat().st_size == file.bytes and _sha256(target) == file.sha256:
                continue
            if target.exists() and not force:
                raise UsageError(f"{target} is there with other content; fetch into an empty folder, or pass --force.")
            missing.append(file)
        for file in missing:
            if file.bytes > 1 << 20:
                told(f"Fetching {file.path} ({file.bytes / 1e6:.1f} MB) ...")
            _fetch_one(connection, job, file, out)
        parts = out / PARTS
        if parts.is_dir() and not any(parts.iterdir()):
            parts.rmdir()
    return [out / file.path for file in files]


def _fetch_one(connection: Connection, job: str, file: RemoteFile, out: Path) -> None:
    target, part = out / file.path, out / PARTS / file.sha256
    part.parent.mkdir(exist_ok=True)
    failures = 0
    while True:
        there = part.stat().st_size if part.exists() else 0
        if there < file.bytes or file.bytes == 0:
            try:
                _continue(connection, job, file, part, there)
            except ServerAwayError:
                failures = failures + 1 if not part.exists() or part.stat().st_size <= there else 1
                if failures >= _TRIES:
                    raise
                http.pause(min(0.25 * 2**failures, 10.0))
                continue
        if part.stat().st_size == file.bytes and _sha256(part) == file.sha256:
            break
        part.unlink()
        failures += 1
        if failures >= 2 or there == 0:
            raise CompressorError(
                f"{file.path} did not arrive as the service has it (its checksum differs); fetch it again."
            )
    target.parent.mkdir(parents=True, exist_ok=True)
    os.replace(part, target)


def _continue(connection: Connection, job: str, file: RemoteFile, part: Path, there: int) -> None:
    """Append what is missing. Raises ``ServerAwayError`` where the connection breaks; what came is kept."""
    headers = {"Accept-Encoding": "identity"}
    if there:
        headers |= {"Range": f"bytes={there}-", "If-Range": f'"{file.sha256}"'}
    with connection.stream(f"/jobs/{job}/files/{quote(file.path)}", headers) as response:
        begins = response.headers.get("Content-Range", "")
        goes_on = response.status_code == 206 and begins.startswith(f"bytes {there}-")
        size = there if goes_on else 0
        with part.open("ab" if goes_on else "wb") as stream:
            for chunk in response.iter_bytes():
                size += len(chunk)
                if size > file.bytes:
                    stream.truncate(0)
                    raise CompressorError(f"{file.path} is larger than the service says; nothing of it was kept.")
                stream.write(chunk)
            stream.flush()
            os.fsync(stream.fileno())
    if size < file.bytes:
        raise ServerAwayError(f"{connection.url} ended in the middle of {file.path}; try again.")


def _sha256(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
