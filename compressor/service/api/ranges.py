"""Ranges of bytes and conditions (RFC 9110). Ranges are one at a time, as browsers and download tools ask for them."""

from __future__ import annotations

import re

_RANGE = re.compile(r"bytes\s*=\s*(\d{0,18})\s*-\s*(\d{0,18})", re.IGNORECASE)
_TAG = re.compile(r'(W/)?("[^"]*")')


def names_tag(header: str | None, etag: str, *, weak: bool) -> bool:
    """Whether ``If-Match`` or ``If-None-Match`` names a strong ``etag``; ``*`` names any.

    Args:
        weak: whether ``W/`` before a tag is no matter, which it is not to ``If-None-Match``.
    """
    if header is None:
        return False
    return header.strip() == "*" or any(tag == etag and (weak or not mark) for mark, tag in _TAG.findall(header))


class UnsatisfiableError(ValueError):
    """The range lies behind the end."""


def read_range(header: str | None, size: int) -> tuple[int, int] | None:
    """The first byte that is asked for and the one after the last; None for the whole: without a header, or with one
    that is malformed or names several ranges, which may be answered so.

    Raises:
        UnsatisfiableError: there is no such byte.
    """
    match = _RANGE.fullmatch(header.strip()) if header else None
    if match is None or not (match[1] or match[2]):
        return None
    if not match[1]:
        count = min(int(match[2]), size)
        if count == 0:
            raise UnsatisfiableError
        return size - count, size
    first = int(match[1])
    last = int(match[2]) if match[2] else size - 1
    if match[2] and last < first:
        return None
    if first >= size:
        raise UnsatisfiableError
    return first, min(last + 1, size)
