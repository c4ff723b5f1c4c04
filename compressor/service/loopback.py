"""Which addresses are this machine's own, and which keys would leave it in the open. Needs no server."""

from __future__ import annotations

import ipaddress
from urllib.parse import urlsplit


def is_loopback(name: str | None) -> bool:
    """Whether a host name or address is this machine's own."""
    if name is None:
        return False
    if name == "localhost":
        return True
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False


def exposed_key(server: str, key: str | None) -> str | None:
    """What to warn of where a key is sent over plain HTTP to another machine; None where nothing is to be said.

    Args:
        server: the address of the service. One that is none is for others to refuse.
    """
    try:
        parts = urlsplit(server)
        name = parts.hostname
    except ValueError:
        return None
    if not key or parts.scheme != "http" or name is None or is_loopback(name):
        return None
    return (
        f"The key goes to {name} over plain HTTP, where it can be read on the way; use an https:// address, or a "
        "tunnel (ssh -L) and http://127.0.0.1."
    )
