"""Bodies that are too large or too slow, whatever route they are for."""

from __future__ import annotations

import asyncio

from starlette.datastructures import Headers
from starlette.types import Message, Receive

from compressor.service.access.errors import BadRequestError
from compressor.service.access.hosts import content_type
from compressor.service.errors import TooLargeError

#: Documents (recipes, forms, events) are read into memory.
DOCUMENT_BYTES = 16 << 20
#: Files are not; their routes know how large they may be. Forms with files have a little around them.
_FILES = ("application/octet-stream", "application/offset+octet-stream", "multipart/form-data")
#: Seconds in which something of a body must come.
PATIENCE = 30.0


class Body:
    """A request's body, watched while it is read.

    Args:
        headers: Of the request.
        receive: What reads it.
        patience: Seconds in which something must come.

    Attributes:
        slow, large: Why the rest was not read: to the route it looks as if the client had gone.
    """

    def __init__(self, headers: Headers, receive: Receive, patience: float = PATIENCE) -> None:
        self._receive, self._patience = receive, patience
        self._most = None if content_type(headers) in _FILES else DOCUMENT_BYTES
        self._read, self._complete = 0, False
        self.slow = self.large = False
        length = headers.get("content-length")
        if length is None:
            return
        if not length.isascii() or not length.isdigit():
            raise BadRequestError("Content-Length is no number.")
        if self._most is not None and int(length) > self._most:
            raise TooLargeError(f"A document has at most {self._most} bytes here, and this one {int(length)}.")

    async def __call__(self) -> Message:
        if self.slow or self.large:
            return {"type": "http.disconnect"}
        if self._complete:
            return await self._receive()  # until the client is gone
        try:
            message = await asyncio.wait_for(self._receive(), self._patience)
        except TimeoutError:
            self.slow = True
            return {"type": "http.disconnect"}
        self._read += len(message.get("body", b""))
        self._complete = not message.get("more_body", False)
        if self._most is not None and self._read > self._most:
            self.large = True
            return {"type": "http.disconnect"}
        return message
