"""Whose things a request is about."""

from __future__ import annotations

from typing import Annotated

from fastapi import Depends, Query

from compressor.service.access.principals import PROJECT, Principal, principal_of
from compressor.service.errors import NotFoundError

Caller = Annotated[Principal, Depends(principal_of)]
"""A parameter of an endpoint: who asks."""
AskedProject = Annotated[
    str | None, Query(max_length=63, description="For keys of all projects: the one meant.", examples=["default"])
]


def seen_project(principal: Principal, asked: str | None) -> str | None:
    """The project whose things are listed; None for all. Raises ``NotFoundError`` for one that is not theirs."""
    if asked is None or asked == "":
        return principal.project
    if not principal.visible(asked) or not PROJECT.fullmatch(asked):
        raise NotFoundError(f"There is no project {asked!r} for this key; leave the project out.")
    return asked
