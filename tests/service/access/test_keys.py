"""Keys and sessions in a database."""

from __future__ import annotations

import hashlib
from datetime import timedelta

import pytest
from sqlalchemy import select

from compressor.errors import UsageError
from compressor.service.access.audit import Audit
from compressor.service.access.keys import PREFIX, Keys
from compressor.service.access.sessions import LIFETIME, Sessions
from compressor.service.database.tables import ApiKeyRow, SessionRow
from compressor.service.services import Services
from tests.service.clocks import FakeClock


@pytest.fixture
def keys(services: Services) -> Keys:
    return Keys(services.database, services.clock)


def test_a_key_is_shown_once_and_kept_as_a_hash(services: Services, keys: Keys) -> None:
    record, key = keys.create("ann", project="vision", scopes=["submit", "read"], by="cli:root")
    assert key.startswith(PREFIX)
    assert len(key) == len(PREFIX) + 43  # 256 bits
    with services.database.begin(write=False) as session:
        row = session.scalars(select(ApiKeyRow)).one()
        assert row.hash == hashlib.sha256(key.encode()).hexdigest()
        assert key not in repr(vars(row))
    assert record.scopes == ("read", "submit")
    found = keys.check(key)
    assert found is not None
    assert (found.who, found.project, found.scopes) == ("key:ann", "vision", {"read", "submit"})
    assert found.visible("vision")
    assert not found.visible("default")


@pytest.mark.parametrize("wrong", ["", "x", PREFIX, "ü" * 50, "\udc80"])
def test_what_is_no_key_is_nobodys(keys: Keys, wrong: str) -> None:
    keys.create("ann", by="x")
    assert keys.check(wrong) is None


def test_the_hash_of_a_key_is_no_key(keys: Keys) -> None:
    _, key = keys.create("ann", by="x")
    assert keys.check(hashlib.sha256(key.encode()).hexdigest()) is None
    assert keys.check(key + "A") is None
    assert keys.check(key[:-1]) is None


def test_what_is_revoked_ends_at_once_also_elsewhere(services: Services, keys: Keys) -> None:
    elsewhere = Keys(services.database, services.clock)
    sessions = Sessions(services.database, services.clock)
    for how in (0, 1, 2):
        record, key = keys.create("ann", by="x")
        principal = elsewhere.check(key)
        assert principal is not None
        cookie = sessions.open(principal)
        assert sessions.check(cookie) is not None
        keys.revoke((record.id, record.name, key)[how], by="x")
        assert elsewhere.check(key) is None
        assert sessions.check(cookie) is None
    assert [entry.revoked_at is not None for entry in keys.records()] == [True] * 3
    with pytest.raises(UsageError, match="'ann'"):
        keys.revoke("ann", by="x")
    assert keys.exist()
    assert elsewhere.exist()


def test_without_keys_there_are_none(keys: Keys) -> None:
    assert not keys.exist()
    keys.create("ann", by="x")
    assert keys.exist()


def test_names_projects_and_scopes_that_cannot_be(keys: Keys) -> None:
    keys.create("ann", by="x")
    for name in ("ann", "", "a\nb", "<b>", "x" * 101, "-a"):
        with pytest.raises(UsageError):
            keys.create(name, by="x")
    for project in ("", "A", "../x", "a/b", "x" * 64):
        with pytest.raises(UsageError):
            keys.create("bob", project=project, by="x")
    for scopes in ([], ["read", "root"]):
        with pytest.raises(UsageError):
            keys.create("bob", scopes=scopes, by="x")
    assert [record.name for record in keys.records()] == ["ann"]


def test_the_last_use_is_written_once_a_minute(services: Services, keys: Keys, clock: FakeClock) -> None:
    _, key = keys.create("ann", by="x")
    assert keys.records()[0].used_at is None
    keys.check(key)
    first = keys.records()[0].used_at
    assert first is not None
    clock.advance(59)
    keys.check(key)
    assert keys.records()[0].used_at == first
    clock.advance(2)
    keys.check(key)
    second = keys.records()[0].used_at
    assert second is not None
    assert (second - first).total_seconds() >= 60


def test_sessions_expire_and_end(services: Services, keys: Keys, clock: FakeClock) -> None:
    sessions = Sessions(services.database, services.clock)
    _, key = keys.create("ann", by="x")
    principal = keys.check(key)
    assert principal is not None
    first, second = sessions.open(principal), sessions.open(principal)
    with services.database.begin(write=False) as session:
        rows = session.scalars(select(SessionRow)).all()
        assert len({row.csrf for row in rows}) == 2
        assert not {first, second} & {row.hash for row in rows}
    found = sessions.check(first)
    assert found is not None
    assert found.way == "session"
    assert found.scopes == principal.scopes
    assert found.csrf
    sessions.close(first)
    assert sessions.check(first) is None
    clock.advance((LIFETIME - timedelta(seconds=1)).total_seconds())
    assert sessions.check(second) is not None
    clock.advance(1)
    assert sessions.check(second) is None
    sessions.open(principal)
    with services.database.begin(write=False) as session:
        assert len(session.scalars(select(SessionRow)).all()) == 1  # what is over is swept out


def test_the_audit_log_tells_of_keys(services: Services, keys: Keys) -> None:
    record, _ = keys.create("ann", project="vision", by="cli:root")
    keys.create("bob", by="cli:root")
    keys.revoke("ann", by="cli:eve")
    entries = Audit(services.database, services.clock).entries()
    assert [(e.who, e.action) for e in entries] == [
        ("cli:eve", "key.revoke"),
        ("cli:root", "key.create"),
        ("cli:root", "key.create"),
    ]
    assert entries[0].subject == entries[2].subject == record.id
    audit = Audit(services.database, services.clock)
    assert [e.id for e in audit.entries(before=entries[0].id, limit=1)] == [entries[1].id]
    assert {e.project for e in audit.entries(project="vision")} == {"vision"}
