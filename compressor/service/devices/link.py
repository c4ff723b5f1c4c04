"""An agent's way to the server: HTTP outbound, tried again for as long as the server is away."""

from __future__ import annotations

import hashlib
import os
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from threading import Event
from typing import TYPE_CHECKING, Any

from compressor.errors import CompressorError, MissingDependencyError, UsageError

if TYPE_CHECKING:
    import httpx

_PATIENCE_S = 30.0  # seconds for an answer, beyond those that a long poll waits
_LONGEST_PAUSE_S = 10.0
#: Answers that say that the server will be well again: too many requests, gateways and databases that are away.
_LATER = (429, 502, 503, 504)


class AgentRefusedError(CompressorError):
    """The server does not let this agent work; the message is the server's."""

    exit_code = 2


class StoppedError(CompressorError):
    """The agent was told to end while it waited for the server."""


class AgentLink:
    """Requests of one agent.

    Args:
        server: URL of the server.
        key: of the scope ``agent``; ``None`` for a server without keys, on this machine.
        client: what sends; made of ``server`` and ``key`` if left out.
        stop: ends waiting.
        say: told when the server goes away and comes back.
    """

    def __init__(
        self,
        server: str,
        key: str | None = None,
        *,
        client: httpx.Client | None = None,
        stop: Event | None = None,
        say: Callable[[str], None] = lambda line: None,
    ) -> None:
        self.server = server.rstrip("/")
        self.client = client if client is not None else _client(self.server, key)
        self.stop, self._say = stop if stop is not None else Event(), say
        self._away = False

    def post(self, path: str, document: dict[str, Any], *, wait_s: float = 0.0) -> tuple[int, dict[str, Any]]:
        """Status and document of the answer, however long the server is away.

        Raises:
            AgentRefusedError: no key, a wrong one, or none of this scope. StoppedError: it is time to end.
        """
        import httpx

        pause_s = 0.5
        while True:
            try:
                got = self.client.post(f"/v1{path}", json=document, timeout=wait_s + _PATIENCE_S)
                if got.status_code not in _LATER:
                    break
                reason = f"{got.status_code} {got.reason_phrase}"
            except httpx.TransportError as error:
                reason = str(error) or type(error).__name__
            if not self._away:
                self._away = True
                self._say(f"The server {self.server} does not answer ({reason}); trying again.")
            if self.stop.wait(pause_s):
                raise StoppedError("The agent was ended.")
            pause_s = min(2 * pause_s, _LONGEST_PAUSE_S)
        if self._away:
            self._away = False
            self._say(f"The server {self.server} answers again.")
        document = _document(got)
        if got.status_code in (401, 403):
            raise AgentRefusedError(f"{self.server} refuses: {document.get('detail') or got.reason_phrase}")
        return got.status_code, document

    def try_post(self, path: str, document: dict[str, Any], *, timeout_s: float = 5.0) -> tuple[int, dict[str, Any]]:
        """As ``post``, once: status 0 if the server is away."""
        import httpx

        try:
            got = self.client.post(f"/v1{path}", json=document, timeout=timeout_s)
        except httpx.TransportError:
            return 0, {}
        return got.status_code, _document(got)

    def fetch(self, path: str, sha256: str, into: Path) -> None:
        """Write a file, whole and with this hash or not at all.

        Raises:
            CompressorError: the server has it not, or what came has another hash.
        """
        import httpx

        for attempt in range(5):
            try:
                with self.client.stream("GET", f"/v1{path}", timeout=_PATIENCE_S) as got:
                    if got.status_code == 200:
                        _write(got, sha256, into)
                        return
                    reason = f"{got.status_code} {got.reason_phrase}"
                    if got.status_code not in _LATER:
                        break
            except (httpx.TransportError, _BrokenError) as error:
                reason = str(error) or type(error).__name__
            if self.stop.wait(min(0.5 * 2**attempt, _LONGEST_PAUSE_S)):
                raise StoppedError("The agent was ended.")
        raise CompressorError(f"The file {sha256[:12]} could not be fetched from {self.server} ({reason}).")

    def close(self) -> None:
        """Close connections."""
        self.client.close()


class _BrokenError(Exception):
    """What came is not the file."""


def _write(got: httpx.Response, sha256: str, into: Path) -> None:
    descriptor, name = tempfile.mkstemp(dir=into.parent, prefix=".part")
    part = Path(name)
    try:
        found = hashlib.sha256()
        with os.fdopen(descriptor, "wb") as file:
            for chunk in got.iter_bytes():
                found.update(chunk)
                file.write(chunk)
        if found.hexdigest() != sha256:
            raise _BrokenError("the file came with another hash")
        os.replace(part, into)
    finally:
        part.unlink(missing_ok=True)


def _document(got: httpx.Response) -> dict[str, Any]:
    found: Any = None
    with suppress(ValueError):  # an answer without JSON, of a proxy say; its status counts
        found = got.json()
    document = found if isinstance(found, dict) else {}
    if "retry-after" in got.headers:
        document["retry_after"] = got.headers["retry-after"]
    return document


def _client(server: str, key: str | None) -> httpx.Client:
    try:
        import httpx
    except ImportError as error:
        raise MissingDependencyError("An agent needs httpx: pip install 'compressor[client]'.") from error
    if not server.startswith(("http://", "https://")):
        raise UsageError(f"The server is a URL such as https://compress.example.com, not {server!r}.")
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    return httpx.Client(base_url=server, headers=headers, follow_redirects=False)


class Files:
    """Files to measure, in a folder, the most recent of them up to a size.

    Args:
        folder: where; made if missing.
        most_bytes: those used longest ago go when there are more.
    """

    def __init__(self, folder: Path, most_bytes: int = 4 << 30) -> None:
        self.folder, self.most_bytes = folder, most_bytes
        folder.mkdir(parents=True, exist_ok=True)

    def get(self, sha256s: list[str], fetch: Callable[[str, Path], None]) -> None:
        """Have these files, fetching those that are missing. Raises as ``fetch``."""
        wanted = [self.folder / f"{sha256}.onnx" for sha256 in sha256s]
        for sha256, path in zip(sha256s, wanted, strict=True):
            if not path.is_file():
                self._make_room(keep=wanted)
                fetch(sha256, path)
            with suppress(OSError):  # it goes sooner from the cache, no more
                os.utime(path, (time.time(), time.time()))

    def _make_room(self, keep: list[Path]) -> None:
        there = [(path.stat().st_mtime, path.stat().st_size, path) for path in self.folder.glob("*.onnx")]
        total = sum(size for _, size, _ in there)
        for _, size, path in sorted(there):
            if total <= self.most_bytes:
                return
            if path not in keep:
                path.unlink(missing_ok=True)
                total -= size
