"""The worker's end of a job's socket: what the child asks for goes to the server, by HTTP, until it is answered."""

from __future__ import annotations

import contextlib
import os
import socket
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import IO, TYPE_CHECKING, Any

from compressor.service.devices import channel
from compressor.service.devices.channel import ChannelError
from compressor.service.devices.protocol import SHA256

if TYPE_CHECKING:
    import httpx

_WAIT_S, _PATIENCE_S = 20.0, 60.0
_LATER = (408, 425, 429, 500, 502, 503, 504)
_MOST_FAILURES = 5  # of the server itself, status 500
_LONGEST_PAUSE_S = 10.0


class _RefusedError(Exception):
    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status = status


class Relay:
    """Listens in the folder of a job as long as the ``with`` block lasts.

    Args:
        folder: the job's.
        client: to the server, with its URL and the worker's key.
        job_id, token: the job and its lease.
    """

    def __init__(self, folder: Path, client: httpx.Client, job_id: str, token: str) -> None:
        self._client, self._token = client, token
        self._path = folder / channel.FOLDER / channel.SOCKET
        self._base = f"/v1/work/{job_id}/device"
        self._stop = threading.Event()
        self._waiting: dict[int, str] = {}
        self._open: set[socket.socket] = set()
        self._listener: socket.socket | None = None

    @property
    def waiting_for(self) -> str | None:
        """What the job waits for, in a line, if it is more than a measurement under way."""
        return "; ".join(sorted(set(self._waiting.copy().values()))) or None

    def __enter__(self) -> Relay:
        self._path.parent.mkdir(mode=0o700, exist_ok=True)
        self._path.unlink(missing_ok=True)
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        with channel.address(self._path) as name:
            self._listener.bind(name)
        self._path.chmod(0o600)
        self._listener.listen(16)
        threading.Thread(target=self._accept, name="device relay", daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        for each in (self._listener, *self._open):
            if each is not None:
                with contextlib.suppress(OSError):  # the other side has closed it
                    each.shutdown(socket.SHUT_RDWR)
                each.close()
        self._path.unlink(missing_ok=True)

    def _accept(self) -> None:
        assert self._listener is not None
        while not self._stop.is_set():
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            self._open.add(connection)
            threading.Thread(target=self._serve, args=(connection,), name="device relay", daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        me = threading.get_ident()
        try:
            while True:
                document, size = channel.receive(connection)
                with _spooled(connection, size) as file:
                    try:
                        answer = self._answer(me, document, file)
                    except _RefusedError as error:
                        answer = {"error": str(error), "status": error.status}
                    except (KeyError, TypeError) as error:
                        answer = {"error": f"The worker does not understand: {error}.", "status": 422}
                    finally:
                        self._waiting.pop(me, None)
                channel.send(connection, answer)
        except (OSError, EOFError, ChannelError):
            pass  # the child ended, or says what nobody understands
        finally:
            self._open.discard(connection)
            connection.close()

    def _answer(self, me: int, document: dict[str, Any], file: IO[bytes] | None) -> dict[str, Any]:
        what = document.get("do")
        if what == "open":
            return self._post(me, "", {"name": str(document["name"])})
        if what in ("has", "put"):
            return self._content(me, str(document["sha256"]), file)
        session = f"/{_segment(document['session'])}"
        if what == "ask":
            asked = {"key": document["key"], "request": document["request"], "wait_seconds": _WAIT_S}
            while True:
                found = self._post(me, session, asked)
                if found.get("state") == "done":
                    return found
                self._note(me, found.get("waiting_for"))
        if what == "calibrations":
            names = ("target", "reference_ms", "models")
            return self._post(me, f"{session}/calibrations", {name: document[name] for name in names})
        if what in ("table", "close"):
            return self._post(me, f"{session}/{what}", {})
        raise _RefusedError(422, f"The worker cannot do {str(what)[:40]!r} on a device.")

    def _content(self, me: int, sha256: str, file: IO[bytes] | None) -> dict[str, Any]:
        if not SHA256.fullmatch(sha256):
            raise _RefusedError(422, "A file is named by its SHA-256.")
        path = f"/v1/work/blobs/{sha256}"
        if file is None:
            got = self._send(me, "HEAD", path)
            return {"has": got.status_code == 200}
        got = self._send(me, "PUT", path, file=file)
        _require(got)
        return {"has": True}

    def _post(self, me: int, path: str, document: dict[str, Any]) -> dict[str, Any]:
        got = self._send(me, "POST", self._base + path, {"token": self._token, **document})
        _require(got)
        found: Any = got.json() if got.content else {}
        return found if isinstance(found, dict) else {}

    def _send(
        self, me: int, method: str, path: str, document: Any = None, file: IO[bytes] | None = None
    ) -> httpx.Response:
        """Until the server answers, or the job is over."""
        import httpx

        pause_s, failures = 0.25, 0
        headers = {"X-Lease-Token": self._token}
        if file is not None:
            headers["Content-Type"] = "application/octet-stream"
            headers["Content-Length"] = str(file.seek(0, os.SEEK_END))
        while not self._stop.is_set():
            try:
                if file is not None:
                    file.seek(0)
                got = self._client.request(
                    method,
                    path,
                    json=document,
                    content=_pieces(file) if file is not None else None,
                    headers=headers,
                    timeout=_WAIT_S + _PATIENCE_S,
                )
                failures += got.status_code == 500
                if got.status_code not in _LATER or failures > _MOST_FAILURES:
                    return got
            except httpx.TransportError:
                pass  # the server is away, which is noted and tried again below
            self._note(me, "the server, which does not answer")
            self._stop.wait(pause_s)
            pause_s = min(2 * pause_s, _LONGEST_PAUSE_S)
        raise _RefusedError(503, "The job is over.")

    def _note(self, me: int, waiting_for: Any) -> None:
        if waiting_for:
            self._waiting[me] = str(waiting_for)[:200]
        else:
            self._waiting.pop(me, None)


def _segment(value: Any) -> str:
    """A part of a path that a child names; it cannot lead elsewhere."""
    text = str(value)
    if not text.isalnum() or not text.isascii() or len(text) > 40:
        raise _RefusedError(422, "A device session has another name.")
    return text


def _require(got: httpx.Response) -> None:
    if got.status_code < 400:
        return
    try:
        text = str(got.json().get("detail"))
    except (ValueError, AttributeError):
        text = f"The server answers {got.status_code}."
    raise _RefusedError(got.status_code, text)


@contextlib.contextmanager
def _spooled(connection: socket.socket, size: int) -> Iterator[IO[bytes] | None]:
    """A file that comes after a document, kept so that it can be sent again."""
    if not size:
        yield None
        return
    with tempfile.SpooledTemporaryFile(max_size=8 << 20) as file:
        channel.receive_file(connection, size, file)
        yield file


def _pieces(file: IO[bytes]) -> Iterator[bytes]:
    while piece := file.read(1 << 20):
        yield piece
