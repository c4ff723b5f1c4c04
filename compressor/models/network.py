"""A quick answer to "can this address be reached?", so that a machine without network does not wait for minutes."""

from __future__ import annotations

import socket
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager

PROBE_SECONDS = 4.0
TRANSFER_SECONDS = 20.0


def unreachable_reason(url: str, seconds: float = PROBE_SECONDS) -> str | None:
    """Why ``url`` cannot be reached, or None if it can.

    The probe runs in a thread of its own because looking up a host name has no time limit.
    """
    found: list[str | None] = []
    thread = threading.Thread(target=lambda: found.append(_probe(url, seconds)), daemon=True)
    thread.start()
    thread.join(seconds)
    return found[0] if found else f"no answer within {seconds:g} s"


def _probe(url: str, seconds: float) -> str | None:
    try:
        with urllib.request.urlopen(urllib.request.Request(url, method="HEAD"), timeout=seconds):
            return None
    except urllib.error.HTTPError as error:
        # The server answered; many refuse HEAD and still serve GET.
        return f"the server answers {error.code}" if error.code >= 500 else None
    except (OSError, ValueError) as error:
        return str(getattr(error, "reason", error)) or type(error).__name__


@contextmanager
def transfer_timeout(seconds: float = TRANSFER_SECONDS) -> Iterator[None]:
    """Give sockets opened inside a time limit, for libraries that set none."""
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(seconds)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)
