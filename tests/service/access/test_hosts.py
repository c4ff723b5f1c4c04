"""Hosts and origins: what other sites' pages can make a browser send is refused."""

from __future__ import annotations

import pytest
from starlette.datastructures import Headers

from compressor.errors import UsageError
from compressor.service.access.errors import BadRequestError
from compressor.service.access.hosts import check_binding, check_host, check_origin, is_form, split_host
from compressor.service.errors import ForbiddenError
from compressor.service.loopback import is_loopback


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("127.0.0.1:8080", ("127.0.0.1", 8080)),
        ("LOCALHOST", ("localhost", None)),
        ("[::1]:8080", ("::1", 8080)),
        ("example.org.", ("example.org", None)),
    ],
)
def test_hosts_are_read(text: str, expected: tuple[str, int | None]) -> None:
    assert split_host(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        "",
        ":80",
        "a:b",
        "a:99999",
        "evil@localhost",
        "localhost/..",
        "localhost?x",
        "localhost#x",
        "local host",
        "[::1",
        "a\\b@c",
        "é",
    ],
)
def test_what_is_no_host_is_refused(text: str) -> None:
    with pytest.raises(BadRequestError):
        split_host(text)


@pytest.mark.parametrize("name", ["127.0.0.1", "127.8.9.1", "localhost", "::1"])
def test_this_machine(name: str) -> None:
    assert is_loopback(name)


@pytest.mark.parametrize(
    "name", [None, "", "0.0.0.0", "10.0.0.1", "localhost.evil.org", "127.0.0.1.nip.io", "2130706433", "::"]
)
def test_other_machines(name: str | None) -> None:
    assert not is_loopback(name)


def _host(
    host: str, client: str | None = "127.0.0.1", keys: bool = False, allowed: tuple[str, ...] = (), **more: str
) -> None:
    headers = Headers({"host": host, **{name.replace("_", "-"): value for name, value in more.items()}})
    check_host(headers, client, keys_exist=keys, allowed=allowed)


def test_without_keys_this_machine_alone_is_answered() -> None:
    for host in ("127.0.0.1:8080", "localhost:9000", "[::1]:8080", "localhost"):
        _host(host)
    for host in ("evil.example:8080", "192.168.0.4:8080", "127.0.0.1.evil.example", "localhost.evil.example"):
        with pytest.raises(ForbiddenError):
            _host(host)
    for client in ("192.168.0.9", None, "testclient"):
        with pytest.raises(ForbiddenError):
            _host("127.0.0.1", client)


@pytest.mark.parametrize("header", ["x_forwarded_for", "forwarded", "via", "x_real_ip", "x_forwarded_host"])
def test_without_keys_no_proxy_lets_the_world_in(header: str) -> None:
    with pytest.raises(ForbiddenError, match="proxy"):
        _host("127.0.0.1:8080", **{header: "203.0.113.9"})


def test_with_keys_hosts_are_those_of_the_setting() -> None:
    _host("anything.example", "192.168.0.9", keys=True)
    for host in ("a.example", "A.EXAMPLE:443", "x.b.example", "127.0.0.1:8080"):
        _host(host, "192.168.0.9", keys=True, allowed=("a.example", "*.b.example"))
    for host in ("c.example", "b.example", "xa.example", "a.example.evil"):
        with pytest.raises(ForbiddenError):
            _host(host, "192.168.0.9", keys=True, allowed=("a.example", "*.b.example"))


def test_two_hosts_are_none() -> None:
    headers = Headers(raw=[(b"host", b"localhost"), (b"host", b"evil.example")])
    with pytest.raises(BadRequestError):
        check_host(headers, "127.0.0.1", keys_exist=False, allowed=())
    with pytest.raises(BadRequestError):
        check_host(Headers({}), "127.0.0.1", keys_exist=False, allowed=())


@pytest.mark.parametrize(
    "origin",
    [
        "https://evil.example",
        "null",
        "http://127.0.0.1:9999",
        "http://127.0.0.1:8080.evil.example",
        "file://",
        "http://127.0.0.1:8080/x",
        "",
    ],
)
def test_other_origins_change_nothing(origin: str) -> None:
    headers = Headers({"host": "127.0.0.1:8080", "origin": origin})
    check_origin("GET", headers)
    for method in ("POST", "PUT", "PATCH", "DELETE"):
        with pytest.raises(ForbiddenError):
            check_origin(method, headers)


def test_this_origin_does() -> None:
    check_origin(
        "POST", Headers({"host": "127.0.0.1:8080", "origin": "http://127.0.0.1:8080", "sec-fetch-site": "same-origin"})
    )
    check_origin("POST", Headers({"host": "a.example", "origin": "https://a.example"}))  # a proxy ends TLS
    check_origin("POST", Headers({"host": "a.example:443", "origin": "https://a.example"}))
    check_origin("POST", Headers({"host": "127.0.0.1:8080"}))  # no browser


@pytest.mark.parametrize("site", ["cross-site", "same-site", "CROSS-SITE", "something"])
def test_what_a_browser_says_comes_from_elsewhere_changes_nothing(site: str) -> None:
    headers = Headers({"host": "127.0.0.1:8080", "sec-fetch-site": site})
    check_origin("GET", headers)
    with pytest.raises(ForbiddenError):
        check_origin("POST", headers)


def test_two_origins_are_refused() -> None:
    headers = [(b"host", b"a.example"), (b"origin", b"https://a.example"), (b"origin", b"https://evil.example")]
    with pytest.raises(ForbiddenError):
        check_origin("POST", Headers(raw=headers))


@pytest.mark.parametrize(
    "kind", ["text/plain", "application/x-www-form-urlencoded; charset=utf-8", "Multipart/Form-Data", ""]
)
def test_bodies_that_forms_of_any_site_can_send(kind: str) -> None:
    assert is_form(Headers({"content-type": kind, "content-length": "3"}))
    assert is_form(Headers({"content-type": kind, "transfer-encoding": "chunked"}))
    assert not is_form(Headers({"content-type": kind, "content-length": "0"}))
    assert not is_form(Headers({"content-type": "application/json", "content-length": "3"}))


def test_a_server_without_keys_listens_to_this_machine() -> None:
    check_binding("127.0.0.1", False)
    check_binding("0.0.0.0", True)
    for host in ("0.0.0.0", "::", "192.168.0.4", "example.org"):
        with pytest.raises(UsageError, match="compress keys create"):
            check_binding(host, False)
