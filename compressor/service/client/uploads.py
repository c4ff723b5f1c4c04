"""Send a file in chunks. Where the connection breaks, the service is asked how much it has, to go on from there."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from compressor.errors import CompressorError
from compressor.service.client import connection as http
from compressor.service.client.connection import Connection
from compressor.service.client.errors import ServerAwayError
from compressor.service.client.local import LocalFile
from compressor.service.errors import ConflictError

CHUNK_BYTES = 4 << 20
_TRIES = 6  # of one chunk


def send(connection: Connection, file: LocalFile, told: Callable[[str], None] = lambda text: None) -> str:
    """Upload a file; returns its id there.

    Args:
        told: is told in a line where something large begins.

    Raises:
        ServerAwayError: the service went away and did not come back. TooLargeError, RefusedError: it does not take it.
    """
    about = {"name": file.name, "kind": file.kind, "bytes": file.bytes, "sha256": file.sha256}
    begun = connection.document("POST", "/uploads", json=about)
    place = f"/uploads/{_id(begun)}"
    if begun.get("state") != "done":
        if file.bytes > CHUNK_BYTES:
            told(f"Sending {file.name} ({file.bytes / 1e6:.1f} MB) ...")
        _send_rest(connection, place, file, _offset(begun))
        finished = connection.document("POST", f"{place}/finish")
        if finished.get("sha256") not in (None, file.sha256):
            raise CompressorError(
                f"{file.name} did not arrive as it is here (its checksum differs): it may have changed meanwhile; send "
                "it again."
            )
    return _id(begun)


def _send_rest(connection: Connection, place: str, file: LocalFile, offset: int) -> None:
    failures = 0
    while offset < file.bytes:
        file.stream.seek(offset)
        chunk = file.stream.read(min(CHUNK_BYTES, file.bytes - offset))
        if not chunk:
            raise CompressorError(f"{file.name} has become shorter while it was sent; send it again.")
        try:
            headers = {"Upload-Offset": str(offset), "Content-Type": "application/octet-stream"}
            answer = connection.document("PATCH", place, content=chunk, headers=headers, again=False)
            reached = _offset(answer)
        except (ServerAwayError, ConflictError):
            failures += 1
            if failures >= _TRIES:
                raise
            http.pause(min(0.25 * 2**failures, 10.0))
            reached = _offset(connection.document("GET", place))
        if reached > offset:
            failures = 0
        elif failures == 0:
            raise CompressorError(
                f"{connection.url} takes nothing more of {file.name} after {offset:,} bytes; ask there."
            )
        offset = reached


def _offset(answer: dict[str, Any]) -> int:
    """How many bytes the service has."""
    found = answer.get("offset", answer.get("received"))
    if not isinstance(found, int) or isinstance(found, bool) or found < 0:
        raise CompressorError("The service does not say how much of an upload it has; look at its address.")
    return found


def _id(answer: dict[str, Any]) -> str:
    found = answer.get("id")
    if not isinstance(found, str) or not found.isalnum():
        raise CompressorError("The service gave an upload no id; look at its address.")
    return found
