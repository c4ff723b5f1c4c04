"""API keys: 256 random bits each, shown once, kept as a hash.

A plain SHA-256 is enough for them: what is random to its last bit cannot be found by trying.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from math import inf

from sqlalchemy import delete, or_, select, update
from sqlalchemy.orm import Session

from compressor.errors import UsageError
from compressor.service.access.audit import audit_row
from compressor.service.access.principals import DEFAULT_PROJECT, PROJECT, SCOPES, Principal
from compressor.service.clock import Clock
from compressor.service.database.base import new_id
from compressor.service.database.engine import Database
from compressor.service.database.tables import ApiKeyRow, SessionRow
from compressor.service.errors import DatabaseAwayError

#: What a key begins with, so that people and scanners of secrets know one when they see it.
PREFIX = "cmpr_"
#: Seconds for which it is believed that there are no keys.
BELIEVED_SECONDS = 0.5
#: ``used_at`` is written at most so often.
USED_EVERY = timedelta(minutes=1)
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9 ._@+-]{0,99}")


@dataclass(frozen=True)
class KeyRecord:
    """A key as a list shows it: everything but the key."""

    id: str
    name: str
    project: str | None
    scopes: tuple[str, ...]
    created_at: datetime
    revoked_at: datetime | None
    used_at: datetime | None


def digest_of(secret: str) -> bytes:
    """The hash that is kept of a key or of a session's cookie."""
    return hashlib.sha256(secret.encode("utf-8", "surrogatepass")).digest()


class Keys:
    """The keys of a database. Changes hold at once for every server on it."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database, self._clock = database, clock
        self._exist = False
        self._asked = -inf  # when there were none, in seconds of the monotonic clock

    def create(
        self, name: str, *, project: str | None = DEFAULT_PROJECT, scopes: Iterable[str] = ("read", "submit"), by: str
    ) -> tuple[KeyRecord, str]:
        """Make a key.

        Args:
            name: For lists and the audit log; no two keys that hold have the same.
            project: The one it is for; None: all.
            scopes: Some of ``read``, ``submit``, ``agent`` and ``admin``.
            by: Who makes it.

        Returns:
            Its record, and the key itself, which nobody can ask for again.

        Raises:
            UsageError: A name, project or scope that cannot be.
        """
        chosen = tuple(scope for scope in SCOPES if scope in set(scopes))
        if unknown := sorted(set(scopes) - set(SCOPES)):
            raise UsageError(f"There is no scope {unknown[0]!r}; choose from {', '.join(SCOPES)}.")
        if not chosen:
            raise UsageError(f"A key needs a scope; choose from {', '.join(SCOPES)}.")
        if not _NAME.fullmatch(name):
            raise UsageError(f"A key cannot be named {name!r}; use up to 100 letters, digits, spaces and ._@+-")
        if project is not None and not PROJECT.fullmatch(project):
            raise UsageError(f"A project cannot be named {project!r}; use up to 63 of a-z, 0-9 and ._-")
        key = PREFIX + secrets.token_urlsafe(32)
        now = self._clock.now()
        row = ApiKeyRow(
            id=new_id(now),
            name=name,
            project=project,
            scopes=list(chosen),
            hash=digest_of(key).hex(),
            created_at=now,
            revoked_at=None,
            used_at=None,
        )
        with self._database.begin(write=True) as session:
            same = select(ApiKeyRow.id).where(ApiKeyRow.name == name, ApiKeyRow.revoked_at.is_(None))
            if session.scalar(same) is not None:
                raise UsageError(f"There is a key named {name!r}; revoke it first, or choose another name.")
            session.add(row)
            details = {"name": name, "scopes": list(chosen)}
            session.add(audit_row(now, by, "key.create", row.id, project, details))
            session.flush()
            record = _record(row)
        self._exist = True
        return record, key

    def records(self, project: str | None = None) -> list[KeyRecord]:
        """All keys, the newest last; of one project where one is named."""
        wanted = select(ApiKeyRow).order_by(ApiKeyRow.id)
        if project is not None:
            wanted = wanted.where(ApiKeyRow.project == project)
        with self._database.begin(write=False) as session:
            return [_record(row) for row in session.scalars(wanted)]

    def revoke(self, key: str, *, by: str) -> KeyRecord:
        """Revoke a key, and end the sessions that were opened with it.

        Args:
            key: Its id, its name, or the key itself.
            by: Who revokes it.

        Raises:
            UsageError: There is none of that id or name that still holds.
        """
        now = self._clock.now()
        with self._database.begin(write=True) as session:
            holds = select(ApiKeyRow).where(ApiKeyRow.revoked_at.is_(None))
            named = or_(ApiKeyRow.id == key, ApiKeyRow.name == key, ApiKeyRow.hash == digest_of(key).hex())
            row = session.scalar(holds.where(named))
            if row is None:
                raise UsageError(f"There is no key {key!r} that holds; 'compress keys list' lists them.")
            row.revoked_at = now
            session.execute(delete(SessionRow).where(SessionRow.key_id == row.id))
            session.add(audit_row(now, by, "key.revoke", row.id, row.project, {"name": row.name}))
            session.flush()
            return _record(row)

    def exist(self) -> bool:
        """Whether there is any key, revoked ones included: revoking the last one does not open the server to all.

        Keys are never deleted, so once is for ever. That there are none is believed for a moment, since every request
        asks; ``compress keys`` waits as long over the first one.
        """
        now = self._clock.monotonic()
        if not self._exist and now - self._asked >= BELIEVED_SECONDS:
            with self._database.begin(write=False) as session:
                self._exist = session.scalar(select(ApiKeyRow.id).limit(1)) is not None
            self._asked = now
        return self._exist

    @property
    def known_to_exist(self) -> bool:
        """What :meth:`exist` said last, without asking the database."""
        return self._exist

    def check(self, key: str) -> Principal | None:
        """Whose key it is; None if it is nobody's, or no longer."""
        digest = digest_of(key).hex()
        now = self._clock.now()
        with self._database.begin(write=False) as session:
            row = session.scalar(select(ApiKeyRow).where(ApiKeyRow.hash == digest))
            # The index finds the row by its hash, which tells nothing about the key; equality is decided here.
            if row is None or not hmac.compare_digest(row.hash, digest) or row.revoked_at is not None:
                return None
            found = principal_of_key(row)
            stale = row.used_at is None or not timedelta(0) <= now - row.used_at < USED_EVERY
        if stale:
            self._used(found.key_id, now)
        return found

    def _used(self, key_id: str | None, now: datetime) -> None:
        """Write down that a key is in use. A database that is busy or away just now keeps nobody out."""
        with suppress(DatabaseAwayError), self._database.begin(write=True) as session:
            session.execute(update(ApiKeyRow).where(ApiKeyRow.id == key_id).values(used_at=now))


def principal_of_key(row: ApiKeyRow) -> Principal:
    """Whoever has a key."""
    return Principal(f"key:{row.name}", frozenset(row.scopes), row.project, "key", row.id)


def holding(session: Session, key_id: str) -> ApiKeyRow | None:
    """A key that has not been revoked."""
    row = session.get(ApiKeyRow, key_id)
    return row if row is not None and row.revoked_at is None else None


def _record(row: ApiKeyRow) -> KeyRecord:
    return KeyRecord(row.id, row.name, row.project, tuple(row.scopes), row.created_at, row.revoked_at, row.used_at)
