"""Whether somebody who was let in may still be answered: streams and long polls go on for longer than keys may hold."""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from threading import Lock

from starlette.requests import Request

from compressor.service.clock import Clock
from compressor.service.errors import UnauthorizedError

#: Seconds for which an answer is believed: those who watch with the same key ask the database once.
BELIEVED_SECONDS = 1.0
_REMEMBERED = 256


@dataclass(frozen=True)
class Shown:
    """What came with a request to show who asks.

    Args:
        key: That of ``Authorization: Bearer``.
        cookie: That of a session.
        user: Whom a trusted proxy has logged in.
    """

    key: str | None = field(default=None, repr=False)
    cookie: str | None = field(default=None, repr=False)
    user: str | None = None

    @property
    def digest(self) -> bytes:
        """A name for it that gives nothing away."""
        return hashlib.sha256(repr((self.key, self.cookie, self.user)).encode("utf-8", "surrogatepass")).digest()


class Standing:
    """Answers whether what was shown still holds.

    Args:
        holds: Asks the database.
        clock: What time it is.
    """

    def __init__(self, holds: Callable[[Shown], bool], clock: Clock) -> None:
        self._holds, self._clock = holds, clock
        self._known: OrderedDict[bytes, float] = OrderedDict()
        self._lock = Lock()

    def require(self, shown: Shown) -> None:
        """Raise ``UnauthorizedError`` once a key was revoked or a session has ended; ``DatabaseAwayError``."""
        now, name = self._clock.monotonic(), shown.digest
        with self._lock:
            if now - self._known.get(name, float("-inf")) < BELIEVED_SECONDS:
                return
        if not self._holds(shown):
            raise UnauthorizedError("This key was revoked, or this session has ended; come in again.")
        with self._lock:
            self._known[name] = now
            self._known.move_to_end(name)
            while len(self._known) > _REMEMBERED:
                self._known.popitem(last=False)


def require_still(request: Request) -> None:
    """Refuse to go on with an answer to somebody who would not be let in any more. Asks the database: in a thread.

    Raises:
        UnauthorizedError: What was shown holds no longer.
        DatabaseAwayError: That cannot be told just now.
    """
    request.app.state.access.standing.require(request.state.shown)
