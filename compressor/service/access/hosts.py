"""Which hosts and origins are answered: no other site's page reaches the service through somebody's browser.

Without keys, whoever reaches the service may do everything, so only this machine does: the address of the client and
the host it asks for must both be loopback. A page elsewhere whose name an attacker lets point to 127.0.0.1 (DNS
rebinding) asks for its own name, and is refused.
"""

from __future__ import annotations

from collections.abc import Iterable
from urllib.parse import urlsplit

from starlette.datastructures import Headers

from compressor.errors import UsageError
from compressor.service.access.errors import BadRequestError
from compressor.service.errors import ForbiddenError
from compressor.service.loopback import is_loopback

SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})
#: Headers of proxies: whoever speaks through one is not on this machine, wherever the proxy is.
_FORWARDED = ("forwarded", "x-forwarded-for", "x-forwarded-host", "x-real-ip", "via")


def split_host(text: str) -> tuple[str, int | None]:
    """Name and port of a Host header; the name in small letters, IPv6 without brackets.

    Raises:
        BadRequestError: It is no host.
    """
    try:
        parts = urlsplit(f"//{text}")
        name, port = parts.hostname, parts.port
        whole = parts.netloc == text and not parts.username and not parts.password
    except ValueError:
        name, port, whole = None, None, False
    if not name or not whole or "@" in text or any(not 33 <= ord(letter) < 127 for letter in text):
        raise BadRequestError("The Host header names no host.")
    return name.rstrip(".").lower(), port


def check_binding(host: str, is_closed: bool) -> None:
    """Refuse to listen where others reach it while there are no keys.

    Raises:
        UsageError: The host is not loopback, and there is no key.
    """
    if not is_closed and not is_loopback(host):
        raise UsageError(
            f"--host {host} would let everybody in: there are no keys yet. Make one first: "
            "compress keys create NAME --scopes admin --all-projects; or serve 127.0.0.1."
        )


def check_host(headers: Headers, client: str | None, *, keys_exist: bool, allowed: Iterable[str]) -> None:
    """Refuse a request for a host that is not this one.

    Args:
        headers: Of the request.
        client: The address it came from.
        keys_exist: Whether there are keys.
        allowed: Host names answered beside loopback ones, where there are keys; none given: all. ``*.example.org``
            stands for every name below.

    Raises:
        BadRequestError: There is none, or several, or it is no host.
        ForbiddenError: It is not answered here.
    """
    hosts = headers.getlist("host")
    if len(hosts) != 1:
        raise BadRequestError("A request needs one Host header.")
    name, _ = split_host(hosts[0])
    if keys_exist:
        names = [entry.lower().rstrip(".") for entry in allowed]
        if names and not is_loopback(name) and not any(_matches(name, entry) for entry in names):
            raise ForbiddenError(f"This server does not answer for {name!r}; its setting allowed_hosts lists names.")
        return
    if not is_loopback(name) or not is_loopback(client):
        raise ForbiddenError(
            "Without keys, only this machine is answered, as 127.0.0.1 or localhost; 'compress keys create' makes keys."
        )
    if any(header in headers for header in _FORWARDED):
        raise ForbiddenError("Without keys, no proxy is answered; 'compress keys create' makes keys.")


def _matches(name: str, entry: str) -> bool:
    if entry == "*":
        return True
    if entry.startswith("*."):
        return name.endswith(entry[1:])
    return name == entry


def check_origin(method: str, headers: Headers) -> None:
    """Refuse what another site's page sends: whatever changes something comes from here, or from no browser.

    Raises:
        ForbiddenError: ``Sec-Fetch-Site`` or ``Origin`` name another site.
    """
    if method in SAFE_METHODS:
        return
    site = headers.get("sec-fetch-site")
    if site is not None and site.lower() not in ("same-origin", "none"):
        raise ForbiddenError("Another site's page sent this; open the page of this server and do it there.")
    origins = headers.getlist("origin")
    if origins and (len(origins) > 1 or not _is_here(origins[0], headers["host"])):
        raise ForbiddenError(f"This came from a page of {origins[0]!r}; open the page of this server and do it there.")


def _is_here(origin: str, host: str) -> bool:
    """Whether an origin has the host asked for. Its scheme may differ: a proxy may end TLS."""
    parts = urlsplit(origin)
    if parts.scheme not in ("http", "https") or parts.path or parts.query or parts.fragment:
        return False
    try:
        return _with_port(*split_host(parts.netloc), parts.scheme) in {
            _with_port(*split_host(host), scheme) for scheme in ("http", "https")
        }
    except BadRequestError:
        return False


def _with_port(name: str, port: int | None, scheme: str) -> tuple[str, int]:
    return name, port or (443 if scheme == "https" else 80)


#: What forms of any site can send without asking (a "simple" request), so that the API takes none of it.
_FORM_TYPES = ("application/x-www-form-urlencoded", "multipart/form-data", "text/plain")


def content_type(headers: Headers) -> str:
    """The media type of a body, in small letters, without parameters; empty where none is said."""
    return headers.get("content-type", "").partition(";")[0].strip().lower()


def has_body(headers: Headers) -> bool:
    """Whether a body follows."""
    return "transfer-encoding" in headers or headers.get("content-length", "0").strip() != "0"


def is_form(headers: Headers) -> bool:
    """Whether a body is one that a form of another site could have sent."""
    return has_body(headers) and content_type(headers) in (*_FORM_TYPES, "")
