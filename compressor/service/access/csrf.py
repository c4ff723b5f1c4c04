"""Forms of the page: what a browser vouches for by itself is done only if the page itself asked for it.

A token is bound to the session (or, without sessions, to this server and whoever uses it). Forms send it as their
first field ``csrf_token``, scripts as the header ``X-CSRF-Token``. It is checked before any route runs.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import re
import secrets
from contextlib import suppress
from pathlib import Path
from urllib.parse import parse_qs

from starlette.datastructures import Headers
from starlette.requests import Request
from starlette.types import Message, Receive

from compressor.service.access.hosts import content_type
from compressor.service.access.principals import principal_of
from compressor.service.errors import ForbiddenError, TooLargeError

FIELD = "csrf_token"
HEADER = "x-csrf-token"
#: A form without files is read whole, one with files until its first field is there.
FORM_BYTES = 1 << 20
_FIRST_FIELD = re.compile(
    rb'\A--[^\r\n]+\r\nContent-Disposition: form-data; name="csrf_token"\r\n\r\n([^\r\n]*)\r\n', re.I
)


def csrf_token(request: Request) -> str:
    """What a form of the page sends back in its field ``csrf_token``."""
    return principal_of(request).csrf or ""


def secret_of(folder: Path) -> bytes:
    """The server's own secret: 32 bytes in a file that nobody else may read; made where there is none."""
    file = folder / "secret"
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    fresh = folder / f".secret-{os.getpid()}-{secrets.token_hex(4)}"
    if not file.exists():
        with os.fdopen(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as stream:
            stream.write(secrets.token_bytes(32))
        try:
            with suppress(FileExistsError):  # another process was faster: its secret is the one
                os.link(fresh, file)
        finally:
            fresh.unlink()
    found = file.read_bytes()
    if len(found) < 32:
        file.unlink()
        return secret_of(folder)
    return found


def token_for(secret: bytes, who: str) -> str:
    """The token of somebody who has no session."""
    return hmac.new(secret, b"csrf\0" + who.encode(), hashlib.sha256).hexdigest()


async def check_csrf(headers: Headers, receive: Receive, expected: str) -> Receive:
    """Refuse a request that does not carry the token.

    Returns:
        What to read the request's body from: the part that was read to find the token comes first.

    Raises:
        ForbiddenError: The token is missing or another.
        TooLargeError: A form without files is larger than a form of the page can be.
    """
    sent = headers.get(HEADER)
    read: list[Message] = []
    if sent is None:
        kind = content_type(headers)
        if kind == "application/x-www-form-urlencoded":
            body = await _read(receive, read, whole=True)
            fields = parse_qs(body.decode("utf-8", "replace"), max_num_fields=1000) if body else {}
            sent = fields.get(FIELD, [""])[0]
        elif kind == "multipart/form-data":
            match = _FIRST_FIELD.match(await _read(receive, read, whole=False))
            sent = match[1].decode("ascii", "replace") if match else ""
    if not sent or not hmac.compare_digest(sent.encode(), expected.encode()):
        raise ForbiddenError("This form is too old, or is not this server's; load the page again and repeat it.")

    async def replay() -> Message:
        return read.pop(0) if read else await receive()

    return replay


async def _read(receive: Receive, read: list[Message], *, whole: bool) -> bytes:
    """A body, or so much of it as its first field can take."""
    body = b""
    while True:
        message = await receive()
        read.append(message)
        body += bytes(message.get("body", b""))
        if message["type"] != "http.request" or not message.get("more_body"):
            return body
        if not whole and len(body) >= 1024:
            return body
        if len(body) > FORM_BYTES:
            raise TooLargeError("This form is too large.")
