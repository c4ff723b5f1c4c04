"""Sessions of the page: a cookie in the browser, its hash and what it may in the database."""

from __future__ import annotations

import hmac
import secrets
from datetime import datetime, timedelta

from sqlalchemy import delete, select

from compressor.service.access.keys import digest_of, holding
from compressor.service.access.principals import Principal
from compressor.service.clock import Clock
from compressor.service.database.engine import Database
from compressor.service.database.tables import SessionRow

LIFETIME = timedelta(hours=12)
_AHEAD = timedelta(minutes=5)
"""Servers that share a database may differ by so much in what time it is."""


class Sessions:
    """Who is logged in on the page."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database, self._clock = database, clock

    def open(self, principal: Principal) -> str:
        """Log somebody in who has shown a key.

        Returns:
            The cookie's value, of which only the hash is kept.
        """
        cookie, now = secrets.token_urlsafe(32), self._clock.now()
        row = SessionRow(
            hash=digest_of(cookie).hex(),
            key_id=principal.key_id,
            user=principal.who,
            project=principal.project,
            scopes=sorted(principal.scopes),
            created_at=now,
            expires_at=now + LIFETIME,
            csrf=secrets.token_urlsafe(32),
        )
        with self._database.begin(write=True) as session:
            session.execute(delete(SessionRow).where(SessionRow.expires_at <= now))
            session.add(row)
        return cookie

    def check(self, cookie: str) -> Principal | None:
        """Whose session it is; None if it has ended, or the key it was opened with was revoked.

        One that was opened in the future has ended, too: the wall clock was set back since, and it would last longer
        than was promised.
        """
        digest, now = digest_of(cookie).hex(), self._clock.now()
        with self._database.begin(write=False) as session:
            row = session.scalar(select(SessionRow).where(SessionRow.hash == digest))
            if row is None or not hmac.compare_digest(row.hash, digest) or not _lasts(row, now):
                return None
            if row.key_id is not None and holding(session, row.key_id) is None:
                return None
            return Principal(row.user, frozenset(row.scopes), row.project, "session", row.key_id, row.csrf)

    def close(self, cookie: str) -> None:
        """Log out."""
        with self._database.begin(write=True) as session:
            session.execute(delete(SessionRow).where(SessionRow.hash == digest_of(cookie).hex()))


def _lasts(row: SessionRow, now: datetime) -> bool:
    return row.created_at - _AHEAD <= now < row.expires_at
