"""Who asks, and what they may do: scopes and projects."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Literal

from fastapi import Request

from compressor.service.errors import ForbiddenError, NotFoundError, UnauthorizedError

#: ``admin`` implies all others; the others imply nothing but themselves.
SCOPES = ("read", "submit", "agent", "admin")
DEFAULT_PROJECT = "default"
PROJECT = re.compile(r"[a-z0-9][a-z0-9._-]{0,62}")

Way = Literal["key", "session", "proxy", "local", "run"]


@dataclass(frozen=True)
class Principal:
    """Somebody whose request is answered.

    Args:
        who: As the audit log names them: ``key:NAME``, ``user:NAME`` (single sign-on), ``local``, ``worker:NAME``.
        scopes: Some of :data:`SCOPES`.
        project: The project they belong to; None for all projects.
        way: How they showed who they are.
        key_id: Id of the key, if it was one.
        csrf: What forms and scripts of the page send back, where a browser vouches for somebody by itself.
    """

    who: str
    scopes: frozenset[str]
    project: str | None
    way: Way = "key"
    key_id: str | None = None
    csrf: str | None = field(default=None, repr=False)

    def may(self, scope: str) -> bool:
        """Whether a scope is among theirs."""
        return scope in self.scopes or "admin" in self.scopes

    def visible(self, project: str | None) -> bool:
        """Whether they see what belongs to a project; of what they do not see, nothing tells that it exists."""
        return self.project is None or self.project == project


def principal_of(request: Request) -> Principal:
    """Who asks (a FastAPI dependency). The guard has found that out before any route runs."""
    found = getattr(request.state, "principal", None)
    if not isinstance(found, Principal):
        raise UnauthorizedError("This needs a key; send it as 'Authorization: Bearer KEY'.")
    return found


def require(principal: Principal, scope: str) -> None:
    """Refuse who lacks a scope."""
    if not principal.may(scope):
        has = ", ".join(s for s in SCOPES if s in principal.scopes) or "none"
        raise ForbiddenError(
            f"This needs the scope {scope!r}; this key has {has}. 'compress keys create' makes others."
        )


def project_of(principal: Principal, asked: str | None = None) -> str:
    """The project that something new goes into.

    Raises:
        NotFoundError: The project asked for is another than theirs, or no name of one.
    """
    if asked is None:
        return principal.project or DEFAULT_PROJECT
    if not principal.visible(asked) or not PROJECT.fullmatch(asked):
        raise NotFoundError(f"There is no project {asked!r} for this key; leave the project out.")
    return asked
