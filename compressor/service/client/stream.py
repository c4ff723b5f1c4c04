"""Server-sent events: read from a stream, and gone on with where a connection broke."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from compressor.errors import CompressorError
from compressor.service.client import connection as http
from compressor.service.client.connection import Connection
from compressor.service.client.errors import ServerAwayError

END = "end"
"""The kind of the last event of a job; the stream is closed after it, unless the job was tried again."""
PATIENCE_S = 300.0
_MOST_BYTES = 16 << 20  # of one event


@dataclass(frozen=True)
class JobEvent:
    """Something that happened to a job.

    Attributes:
        id: of the event, larger than of those before; ``Last-Event-ID`` goes on after it.
        kind: such as ``StageBegan``, or ``end``.
        body: what it says, JSON values.
    """

    id: str
    kind: str
    body: dict[str, Any]


def job_events(
    connection: Connection,
    path: str,
    *,
    after: str | None = None,
    patience_s: float = PATIENCE_S,
    broken: Callable[[str], None] | None = None,
) -> Iterator[JobEvent]:
    """A job's events as they happen, up to its end, each once.

    Args:
        path: of the events.
        after: id of the last event that is known already; None begins with the first.
        patience_s: for how many seconds without any answer another try is made.
        broken: is told once, with a line, when a connection breaks and another is tried.

    Raises:
        ServerAwayError: no answer for longer than that, or never one. NotFoundError, ForbiddenError, ...: refused.
    """
    heard = time.monotonic()
    failures, ended = 0, False
    while True:
        headers = {"Accept": "text/event-stream"} | ({} if after is None else {"Last-Event-ID": after})
        try:
            with connection.stream(path, headers) as response:
                failures, heard = 0, time.monotonic()
                for event in parsed(response.iter_bytes()):
                    heard = time.monotonic()
                    after = event.id or after
                    ended = event.kind == END  # a job that was tried again goes on after one
                    yield event
            if ended:
                return
        except ServerAwayError as error:
            failures += 1
            if not connection.reached or time.monotonic() - heard > patience_s:
                raise
            if failures == 1 and broken is not None:
                broken(f"{error} Trying again ...")
        http.pause(min(0.5 * 2**failures, 10.0))


def parsed(chunks: Iterable[bytes]) -> Iterator[JobEvent]:
    """The events in a stream, as HTML's standard for server-sent events says; what has no data is none.

    Raises:
        CompressorError: an event is no JSON object, or too large.
    """
    kind, last, data = "", "", list[str]()
    for line in _lines(chunks):
        name, colon, value = line.partition(":")
        value = value.removeprefix(" ")
        if not line:
            if data:
                yield JobEvent(last, kind or "message", _object("\n".join(data)))
            kind, data = "", []
        elif not name and colon:
            continue  # a comment, to keep the connection open
        elif name == "data":
            data.append(value)
        elif name == "event":
            kind = value
        elif name == "id" and "\0" not in value:
            last = value


def _lines(chunks: Iterable[bytes]) -> Iterator[str]:
    """Lines without their ends. Only line feeds end them: JSON may hold what else counts as an end of line."""
    rest = b""
    for chunk in chunks:
        *whole, rest = (rest + chunk).split(b"\n")
        for line in whole:
            yield line.removesuffix(b"\r").decode(errors="replace")
        if len(rest) > _MOST_BYTES:
            raise CompressorError("An event of the service is larger than any event is; look at the address.")


def _object(text: str) -> dict[str, Any]:
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict):
        raise CompressorError("An event of the service is no JSON object; look at the address, or update the program.")
    return found
