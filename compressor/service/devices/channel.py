"""The socket between a job's child, which has no network, and its worker: frames, and the child's end.

A frame is two lengths, a JSON document, and the bytes of a file where the document announces one. The child asks, the
worker (``relay``) answers.
"""

from __future__ import annotations

import json
import os
import socket
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from compressor.errors import CompressorError
from compressor.service.errors import NotFoundError

FOLDER, SOCKET, TABLE = ".device", "socket", "lut.sqlite"
"""In the job's folder: where the socket is, and the latency table that the job works with."""
_HEAD = struct.Struct(">IQ")
MOST_JSON, MOST_PAYLOAD = 64 << 20, 8 << 30
_PIECE = 1 << 20
_LONGEST_PATH = 100  # bytes; sockets have no longer ones


class ChannelError(CompressorError):
    """The worker that a job measures through does not answer, or says why it cannot."""


@contextmanager
def address(path: Path) -> Iterator[str]:
    """A name for a socket at ``path`` that is short enough."""
    if len(os.fsencode(path)) <= _LONGEST_PATH:
        yield str(path)
        return
    descriptor = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        yield f"/proc/self/fd/{descriptor}/{path.name}"
    finally:
        os.close(descriptor)


def send(connection: socket.socket, document: dict[str, Any], payload: IO[bytes] | None = None, size: int = 0) -> None:
    """Write a frame."""
    text = json.dumps(document).encode()
    connection.sendall(_HEAD.pack(len(text), size) + text)
    while payload is not None and size:
        piece = payload.read(min(size, _PIECE))
        if not piece:
            raise ChannelError("A file became shorter while it was sent to the worker.")
        connection.sendall(piece)
        size -= len(piece)


def receive(connection: socket.socket) -> tuple[dict[str, Any], int]:
    """The document of a frame, and how many bytes of a file follow it.

    Raises:
        EOFError: the other end is gone. ChannelError: what came is no frame.
    """
    length, size = _HEAD.unpack(_exactly(connection, _HEAD.size))
    if length > MOST_JSON or size > MOST_PAYLOAD:
        raise ChannelError("More was sent through the socket of a job than fits.")
    try:
        found = json.loads(_exactly(connection, length))
    except ValueError as error:
        raise ChannelError("What came through the socket of a job is no JSON.") from error
    if not isinstance(found, dict):
        raise ChannelError("What came through the socket of a job is no object.")
    return found, size


def receive_file(connection: socket.socket, size: int, into: IO[bytes]) -> None:
    """The bytes that follow a document."""
    while size:
        piece = connection.recv(min(size, _PIECE))
        if not piece:
            raise EOFError
        into.write(piece)
        size -= len(piece)


def _exactly(connection: socket.socket, count: int) -> bytes:
    found = bytearray()
    while len(found) < count:
        piece = connection.recv(min(count - len(found), _PIECE))
        if not piece:
            raise EOFError
        found += piece
    return bytes(found)


class Channel:
    """The child's end. Safe to use from any thread and after a fork; one question is under way at a time.

    Args:
        path: the socket.
    """

    def __init__(self, path: Path) -> None:
        self._path, self._lock = path, threading.Lock()
        self._connection: socket.socket | None = None
        self._owner = 0

    def ask(self, document: dict[str, Any], file: Path | None = None) -> dict[str, Any]:
        """The worker's answer.

        Raises:
            NotFoundError: what it is about is not there. ChannelError: anything else that went wrong.
        """
        with self._lock:
            connection = self._connected()
            try:
                if file is None:
                    send(connection, document)
                else:
                    with file.open("rb") as stream:
                        send(connection, document, stream, file.stat().st_size)
                found, _ = receive(connection)
            except (OSError, EOFError) as error:
                self._connection = None
                connection.close()
                raise ChannelError(
                    f"The worker of this job does not answer any more ({error or 'it closed'})."
                ) from error
        if "error" in found:
            kind = NotFoundError if found.get("status") == 404 else ChannelError
            raise kind(str(found["error"]))
        return found

    def close(self) -> None:
        """Close the connection."""
        with self._lock:
            if self._connection is not None:
                self._connection.close()
                self._connection = None

    def _connected(self) -> socket.socket:
        if self._connection is not None and self._owner == os.getpid():
            return self._connection
        found = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            with address(self._path) as name:
                found.connect(name)
        except OSError as error:
            found.close()
            raise ChannelError(f"The worker of this job has no way to devices ({error}).") from error
        self._connection, self._owner = found, os.getpid()
        return found
