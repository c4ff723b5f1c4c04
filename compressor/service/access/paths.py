"""Paths that no route is asked with: they would climb out of a folder, or end a name early."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from compressor.service.access.errors import BadRequestError

#: What is still encoded once the path was decoded: it was encoded twice, to be decoded by somebody else.
_ENCODED = re.compile(r"%(?:2e|2f|5c|00|0a|0d|25)", re.IGNORECASE)


def check_path(scope: Mapping[str, Any]) -> None:
    """Refuse a path with ``..``, a backslash, a control character, or such things encoded twice.

    Raises:
        BadRequestError: It holds one.
    """
    path = scope["path"]
    bad = (
        any(ord(letter) < 32 or ord(letter) == 127 for letter in path)
        or "\\" in path
        or "//" in path
        or any(part in (".", "..") for part in path.split("/"))
        or _ENCODED.search(path)
    )
    if bad:
        raise BadRequestError("This path climbs, or holds characters that no name has here.")
