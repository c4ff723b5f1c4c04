"""HTTP to one service: the address, the key, another try where that is safe, and errors as one line each."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from compressor.errors import CompressorError, MissingDependencyError, UsageError
from compressor.options import shown
from compressor.service.client.errors import ServerAwayError, refusal

if TYPE_CHECKING:
    import httpx

API = 1
"""The version of the API that this client speaks."""
API_HEADER = "Compressor-API"
_TRIES, _PAUSE_S, _LONGEST_PAUSE_S = 4, 0.25, 10.0
_AGAIN = (502, 503, 504)  # also what a service without its database answers
_MOST_BYTES = 64 << 20  # of one document


class Connection:
    """Requests to one service.

    Args:
        url: its address, ``https://host`` or ``http://host:8080``; a path before ``/v1`` is kept.
        key: sent as a bearer token; None where the service takes anyone on this machine.
        transport: of ``httpx``, instead of the network; for tests.

    Raises:
        UsageError: the address or the key cannot be one.
        MissingDependencyError: httpx is not installed.
    """

    def __init__(self, url: str, key: str | None, *, transport: Any = None) -> None:
        self.url = _checked_url(url)
        try:
            import httpx
        except ImportError as error:
            raise MissingDependencyError(
                "A client of the service needs httpx; install it with: pip install 'compressor[client]'."
            ) from error
        headers = {"User-Agent": "compressor"} | ({} if key is None else {"Authorization": f"Bearer {_checked(key)}"})
        timeout = httpx.Timeout(60.0, connect=10.0)
        self._http = httpx.Client(base_url=self.url, headers=headers, timeout=timeout, transport=transport)
        self.reached = False
        """Whether the service has answered before: then it may be starting anew where it does not."""

    def close(self) -> None:
        """Let go of the connections."""
        self._http.close()

    def document(self, method: str, path: str, *, again: bool = True, **more: Any) -> dict[str, Any]:
        """What the service answers, a JSON object; ``more`` is as ``httpx`` takes it."""
        return self.read(self.ask(method, path, again=again, **more))

    def ask(self, method: str, path: str, *, again: bool = True, **more: Any) -> httpx.Response:
        """The answer to one request, which is a good one.

        Args:
            again: whether the request may be sent twice, so that it is tried anew where the connection breaks.

        Raises:
            ServerAwayError: there was no answer. RefusedError and others: it says no.
        """
        import httpx

        for number in range(1, _TRIES + 1):
            last = not again or number == _TRIES
            try:
                response = self._http.request(method, f"/v1{path}", **more)
            except httpx.TransportError as error:
                # One that was never there will hardly come now; one that was may be starting anew.
                if last or not self.reached:
                    raise self.away(error) from error
                pause(_PAUSE_S * 2**number)
                continue
            self.reached = True
            if last or response.status_code not in (*_AGAIN, 429):
                return self.good(response)
            pause(_asked_pause(response, _PAUSE_S * 2**number))
        raise AssertionError("the last try returns or raises")

    @contextmanager
    def stream(self, path: str, headers: Mapping[str, str]) -> Iterator[httpx.Response]:
        """The answer to a GET while it comes in. Raises as ``ask``, also where it breaks off inside the block."""
        import httpx

        try:
            with self._http.stream("GET", f"/v1{path}", headers=dict(headers)) as response:
                self.reached = True
                if response.status_code >= 300:
                    response.read()
                yield self.good(response)
        except httpx.TransportError as error:
            raise self.away(error) from error

    def read(self, response: httpx.Response) -> dict[str, Any]:
        """The JSON object in an answer. Raises ``CompressorError`` for anything else."""
        found = _parsed(response)
        if found is None:
            raise CompressorError(
                f"{self.url} answers, but not as a compressor service does (status {response.status_code}); look at "
                "the address."
            )
        return found

    def good(self, response: httpx.Response) -> httpx.Response:
        """The answer itself if it is no refusal. Raises what it says."""
        version = response.headers.get(API_HEADER, "")
        if response.status_code in (404, 410) and version.isdecimal() and int(version) > API:
            raise CompressorError(
                f"{self.url} speaks version {version} of the API and this program version {API}; update it: "
                "pip install -U compressor."
            )
        if response.is_success:
            return response
        if response.is_redirect:
            target = shown(response.headers.get("Location", ""))
            raise CompressorError(f"{self.url} sends elsewhere ({target}); name the address of the service itself.")
        problem = _parsed(response)
        if response.status_code in _AGAIN:
            said = (problem or {}).get("detail") or f"status {response.status_code}"
            raise ServerAwayError(f"The service at {self.url} cannot answer now ({said}); try again later.")
        if problem is None and response.status_code != 401:
            self.read(response)
        raise refusal(response.status_code, problem or {}, self.url)

    def away(self, error: Exception) -> ServerAwayError:
        """What to say where no answer comes."""
        reason = " ".join(str(error).split()) or type(error).__name__
        return ServerAwayError(
            f"No service answers at {self.url} ({reason}); is it running (compress serve), and is the address right?"
        )


def pause(seconds: float) -> None:
    """Wait before another try."""
    time.sleep(seconds)


def _asked_pause(response: httpx.Response, usual: float) -> float:
    """How long to wait: what the service asks for, within reason."""
    asked = response.headers.get("Retry-After", "")
    return min(float(asked), _LONGEST_PAUSE_S) if asked.isdecimal() and len(asked) < 9 else usual


def _parsed(response: httpx.Response) -> dict[str, Any] | None:
    kind = response.headers.get("Content-Type", "").partition(";")[0].strip()
    if kind not in ("application/json", "application/problem+json") or len(response.content) > _MOST_BYTES:
        return None
    try:
        found = json.loads(response.content)
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None


def _checked_url(url: str) -> str:
    cure = "write it as http://127.0.0.1:8080 or https://compress.example.org"
    if not isinstance(url, str):
        raise UsageError(f"{shown(url)} is no address of a service; {cure}.")
    try:
        parts = urlsplit(url)
        _ = parts.port
    except ValueError as error:
        raise UsageError(f"{shown(url)} is no address of a service ({error}); {cure}.") from error
    if parts.scheme not in ("http", "https") or not parts.hostname or not url.isascii() or not url.isprintable():
        raise UsageError(f"{shown(url)} is no address of a service; {cure}.")
    if parts.username is not None or parts.query or parts.fragment:
        raise UsageError(
            f"The address {parts.scheme}://{parts.hostname} comes with more than an address; {cure}, and pass the key "
            "in COMPRESSOR_KEY or a file."
        )
    return url.rstrip("/").removesuffix("/v1")


def _checked(key: str) -> str:
    if not key.strip() or not key.strip().isascii() or any(not 33 <= ord(letter) <= 126 for letter in key.strip()):
        raise UsageError(
            "The key of the service is none: keys are one word of plain letters, as compress keys made it."
        )
    return key.strip()
