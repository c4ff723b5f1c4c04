"""A reverse proxy in front: whom it speaks for, and whom it has logged in (single sign-on)."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, MutableMapping
from dataclasses import dataclass
from typing import Any

from starlette.datastructures import Headers

from compressor.errors import UsageError
from compressor.service.errors import ForbiddenError

Network = ipaddress.IPv4Network | ipaddress.IPv6Network
#: Letters of a user's name, at most.
LONGEST = 200


def networks_of(texts: Iterable[str]) -> tuple[Network, ...]:
    """Networks of the setting ``trusted_proxies``.

    Raises:
        UsageError: One is no address and no network.
    """
    found = []
    for text in texts:
        try:
            found.append(ipaddress.ip_network(text.strip(), strict=False))
        except ValueError:
            raise UsageError(f"trusted_proxies has {text!r}; write addresses or networks, as in 10.0.0.0/8.") from None
    return tuple(found)


@dataclass(frozen=True)
class Proxies:
    """Proxies that are believed.

    Args:
        networks: Where they are.
        header: The header in which they name the user they have logged in; None where there is no single sign-on.
    """

    networks: tuple[Network, ...] = ()
    header: str | None = None

    def trusts(self, address: str | None) -> bool:
        """Whether an address is one of theirs."""
        try:
            found = ipaddress.ip_address(address or "")
        except ValueError:
            return False
        if isinstance(found, ipaddress.IPv6Address) and found.ipv4_mapped:
            found = found.ipv4_mapped
        return any(found in network for network in self.networks if network.version == found.version)

    def see_through(self, scope: MutableMapping[str, Any]) -> str | None:
        """Set a request's client and scheme to what a trusted proxy says they are.

        Returns:
            The user that the proxy has logged in, if it says one.

        Raises:
            ForbiddenError: Somebody else sends the proxy's header, or a trusted one sends it badly.
        """
        headers = Headers(scope=scope)
        users = headers.getlist(self.header) if self.header else []
        peer = scope["client"][0] if scope.get("client") else None
        if not self.trusts(peer):
            if users:
                raise ForbiddenError(f"The header {self.header} is the proxy's; it is not taken from {peer}.")
            return None
        if scheme := _last(headers, "x-forwarded-proto"):
            scope["scheme"] = "https" if scheme.lower() == "https" else "http"
        hops = [hop.strip() for value in headers.getlist("x-forwarded-for") for hop in value.split(",")]
        for hop in reversed(hops):  # from here outwards, the first that no trusted proxy added
            if not self.trusts(hop):
                scope["client"] = (hop[:64], 0)
                break
        if not users or users == [""]:
            return None
        if len(users) > 1 or len(users[0]) > LONGEST or not users[0].strip().isprintable():
            raise ForbiddenError(f"The header {self.header} names no user.")
        return users[0].strip()


def _last(headers: Headers, name: str) -> str:
    values = headers.getlist(name)
    return values[-1].rpartition(",")[2].strip() if values else ""
