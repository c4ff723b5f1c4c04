"""Proxies: believed from their networks alone."""

from __future__ import annotations

from typing import Any

import pytest

from compressor.errors import UsageError
from compressor.service.access.proxy import Proxies, networks_of
from compressor.service.errors import ForbiddenError

PROXIES = Proxies(networks_of(["10.0.0.0/8", "fd00::/8"]), "X-Remote-User")


def scope(client: str | None, *headers: tuple[str, str]) -> dict[str, Any]:
    raw = [(name.lower().encode(), value.encode("latin-1")) for name, value in headers]
    return {"type": "http", "client": (client, 1) if client else None, "scheme": "http", "headers": raw}


def test_a_trusted_proxy_says_who_asks_and_from_where() -> None:
    found = scope(
        "10.0.0.2",
        ("X-Remote-User", "ann"),
        ("X-Forwarded-Proto", "https"),
        ("X-Forwarded-For", "6.6.6.6, 203.0.113.7, 10.0.0.9"),
    )
    assert PROXIES.see_through(found) == "ann"
    assert found["scheme"] == "https"
    assert found["client"][0] == "203.0.113.7"  # what the client itself wrote further left counts for nothing


def test_without_its_header_nobody_is_logged_in() -> None:
    assert PROXIES.see_through(scope("10.0.0.2")) is None
    assert PROXIES.see_through(scope("10.0.0.2", ("X-Remote-User", ""))) is None


@pytest.mark.parametrize("client", ["203.0.113.7", "127.0.0.1", "::1", None, "11.0.0.1"])
def test_strangers_with_its_header_are_refused(client: str | None) -> None:
    with pytest.raises(ForbiddenError):
        PROXIES.see_through(scope(client, ("X-Remote-User", "ann")))


def test_strangers_say_nothing_about_themselves() -> None:
    found = scope("203.0.113.7", ("X-Forwarded-For", "127.0.0.1"), ("X-Forwarded-Proto", "https"))
    assert PROXIES.see_through(found) is None
    assert (found["client"][0], found["scheme"]) == ("203.0.113.7", "http")


@pytest.mark.parametrize("user", ["a\x00b", "a\x1b[31m", "x" * 201])
def test_names_that_are_none_are_refused(user: str) -> None:
    with pytest.raises(ForbiddenError):
        PROXIES.see_through(scope("10.0.0.2", ("X-Remote-User", user)))


def test_two_names_are_none() -> None:
    with pytest.raises(ForbiddenError):
        PROXIES.see_through(scope("10.0.0.2", ("X-Remote-User", "ann"), ("X-Remote-User", "bob")))


def test_mapped_addresses_are_the_addresses() -> None:
    assert PROXIES.trusts("::ffff:10.1.2.3")
    assert PROXIES.trusts("fd00::7")
    assert not PROXIES.trusts("::ffff:11.1.2.3")


def test_networks_that_are_none_are_named() -> None:
    with pytest.raises(UsageError, match=r"'10\.0\.0'"):
        networks_of(["10.0.0"])
