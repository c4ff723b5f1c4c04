"""Everything that tells who asks, in one place."""

from __future__ import annotations

import hmac
import secrets
from functools import cached_property
from threading import Lock

from compressor.service.access.audit import Audit
from compressor.service.access.csrf import secret_of, token_for
from compressor.service.access.keys import PREFIX, Keys, digest_of
from compressor.service.access.principals import DEFAULT_PROJECT, Principal
from compressor.service.access.proxy import Proxies, networks_of
from compressor.service.access.sessions import Sessions
from compressor.service.access.standing import Shown, Standing
from compressor.service.access.throttle import Throttle
from compressor.service.clock import Clock
from compressor.service.database.engine import Database
from compressor.service.errors import UnauthorizedError
from compressor.service.settings import ServiceSettings


class Access:
    """Keys, sessions, the audit log, and the keys of this run.

    Args:
        database: Where keys, sessions and the audit log are.
        settings: Of the server.
        clock: What time it is.
    """

    def __init__(self, database: Database, settings: ServiceSettings, clock: Clock) -> None:
        self.settings = settings
        self.keys = Keys(database, clock)
        self.sessions = Sessions(database, clock)
        self.audit = Audit(database, clock)
        self.standing = Standing(self.holds, clock)
        self.throttle = Throttle(now=clock.monotonic)
        self.proxies = Proxies(networks_of(settings.trusted_proxies), settings.proxy_header)
        self._run: dict[bytes, Principal] = {}
        self._lock = Lock()

    @cached_property
    def _secret(self) -> bytes:
        return secret_of(self.settings.data_dir)

    def run_secret(self, who: str) -> str:
        """A key for a worker that this server starts: for every project, until the server ends, never stored.

        Args:
            who: The worker's name.
        """
        key = PREFIX + secrets.token_urlsafe(32)
        with self._lock:
            self._run[digest_of(key)] = Principal(f"worker:{who}", frozenset({"agent"}), None, "run")
        return key

    def is_closed(self) -> bool:
        """Whether people must show who they are: there is a key, or a proxy logs people in."""
        return self.proxies.header is not None or self.keys.exist()

    def identify(self, shown: Shown, address: str) -> Principal | None:
        """Who asks; None if nobody that is known.

        Args:
            shown: What came with the request.
            address: Where the request comes from.

        Raises:
            UnauthorizedError: There is a key, and it is no key.
            TooManyError: Too many such keys came from there.
        """
        if shown.key is not None and (found := self._of_this_run(shown.key)):
            return found
        if not self.is_closed():
            return self._unlocked("local", frozenset({"admin"}), DEFAULT_PROJECT)
        if shown.key is not None:
            return self.check_key(shown.key, address)
        if shown.user is not None:
            scopes, project = frozenset(self.settings.proxy_scopes), self.settings.proxy_project
            return self._unlocked(f"user:{shown.user}", scopes, project)
        return self.sessions.check(shown.cookie) if shown.cookie else None

    def holds(self, shown: Shown) -> bool:
        """Whether somebody who showed this and was let in would be let in again."""
        if shown.key is not None and self._of_this_run(shown.key):
            return True
        if not self.is_closed():
            return True
        if shown.key is not None:
            return self.keys.check(shown.key) is not None
        return shown.user is not None or (bool(shown.cookie) and self.sessions.check(shown.cookie or "") is not None)

    def check_key(self, key: str, address: str) -> Principal:
        """Whose key it is.

        Raises:
            UnauthorizedError: It is nobody's.
            TooManyError: Too many such keys came from this address.
        """
        digest = digest_of(key)
        self.throttle.admit(address, digest)
        found = self.keys.check(key)
        if found is None:
            self.throttle.failed(address)
            self.audit.record(f"address:{address}", "key.refused")
            raise UnauthorizedError("This key is not known, or was revoked; 'compress keys create' makes another.")
        self.throttle.accepted(address, digest)
        return found

    def _of_this_run(self, key: str) -> Principal | None:
        digest = digest_of(key)
        with self._lock:
            known = list(self._run.items())
        return next((who for one, who in known if hmac.compare_digest(one, digest)), None)

    def _unlocked(self, who: str, scopes: frozenset[str], project: str | None) -> Principal:
        """Somebody for whom a browser vouches without a session of ours."""
        way = "local" if who == "local" else "proxy"
        return Principal(who, scopes, project, way, csrf=token_for(self._secret, who))  # type: ignore[arg-type]
