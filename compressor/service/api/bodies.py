"""Bodies of requests: never more than is allowed, and refused early where their length says that they are too large."""

from __future__ import annotations

import io
from collections.abc import AsyncIterator
from typing import TypeVar

import anyio.from_thread
from pydantic import BaseModel, ValidationError
from starlette.requests import ClientDisconnect, Request

from compressor.service.errors import RefusedError, TooLargeError
from compressor.service.recipes.reading import LIMITS, parse_bounded
from compressor.storage.reading import Limits

Model = TypeVar("Model", bound=BaseModel)
PIECE = 1 << 20
"""Bytes of an upload that are handled at once."""


class FieldError(RefusedError):
    """A JSON body that lacks something, or has something else; ``key`` says which."""

    def __init__(self, text: str, key: str | None = None) -> None:
        super().__init__(text)
        self.key = key


def require_room(request: Request, limit: int) -> int | None:
    """Refuse a body whose Content-Length is above ``limit``, before it is read. The length, if it is said."""
    said = request.headers.get("content-length")
    if said is None:
        return None
    if not said.isascii() or not said.isdigit():
        raise RefusedError("The Content-Length is no number.")
    if len(said) > 19 or int(said) > limit:
        raise TooLargeError(f"The body has {_exactly(said)}, and at most {_exactly(limit)} are taken here.")
    return int(said)


def _exactly(count: int | str) -> str:
    """Bytes to the last one: rounded, a body that is one too long would be as long as it may be."""
    return f"{int(count):,} bytes" if len(str(count)) <= 19 else "more bytes than there are"


async def pieces(request: Request, limit: int, size: int = PIECE) -> AsyncIterator[bytes]:
    """The body in pieces of about ``size`` bytes; what came of one that ended early is the last piece.

    Raises:
        TooLargeError: it has more than ``limit`` bytes.
        ClientDisconnect: it ended early.
    """
    require_room(request, limit)
    total, held = 0, bytearray()
    try:
        async for chunk in request.stream():
            total += len(chunk)
            if total > limit:
                raise TooLargeError(f"The body has more than {_exactly(limit)}, the most that is taken here.")
            held += chunk
            if len(held) >= size:
                yield bytes(held)
                held.clear()
    except ClientDisconnect:
        if held:
            yield bytes(held)
        raise
    if held:
        yield bytes(held)


async def whole_body(request: Request, limit: int) -> bytes:
    """The body. Raises as ``pieces``."""
    found = bytearray()
    async for piece in pieces(request, limit):
        found += piece
    return bytes(found)


async def json_of(request: Request, model: type[Model], limits: Limits = LIMITS) -> Model:
    """A JSON body as a model.

    Raises:
        FieldError: it is no JSON, or not what the model says.
        TooLargeError: it has more bytes than ``limits`` allows.
    """
    data = await whole_body(request, limits.bytes)
    try:
        value = parse_bounded(data, limits)
    except ValueError as error:
        raise FieldError(f"The body cannot be read as JSON: {error}.") from error
    try:
        return model.model_validate(value)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        key = ".".join(str(part) for part in first["loc"])[:200]
        raise FieldError(f"The body{f', {key}' if key else ''}: {first['msg']}.", key or None) from error


class Body(io.RawIOBase):
    """A request's body as a stream of bytes, for the thread that reads it.

    Args:
        limit: bytes that it may have.
    """

    def __init__(self, request: Request, limit: int) -> None:
        super().__init__()
        require_room(request, limit)
        self._chunks = request.stream()
        self._rest = b""
        self._room = limit

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: object) -> int:
        """The next bytes. Raises ``TooLargeError``, or ``ClientDisconnect`` where the body ends early."""
        view = memoryview(buffer)  # type: ignore[arg-type]
        if not self._rest:
            self._rest = anyio.from_thread.run(self._next)
            self._room -= len(self._rest)
            if self._room < 0:
                raise TooLargeError("The body is larger than is taken here.")
        count = min(len(view), len(self._rest))
        view[:count] = self._rest[:count]
        self._rest = self._rest[count:]
        return count

    async def _next(self) -> bytes:
        async for chunk in self._chunks:
            if chunk:
                return chunk
        return b""


__all__ = ["PIECE", "Body", "ClientDisconnect", "FieldError", "json_of", "pieces", "require_room", "whole_body"]
