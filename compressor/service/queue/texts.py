"""Texts and JSON values that every database can hold: no NUL, no half of a surrogate pair, no NaN."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from compressor.service.errors import RefusedError

_DEEPEST = 60
_MOST_INTEGER = 2**63 - 1


def cleaned(text: str) -> str:
    """The text with what cannot be stored replaced."""
    if text.isascii() and "\0" not in text:
        return text
    return text.encode("utf-8", "replace").decode("utf-8").replace("\0", "\ufffd")


def cleaned_json(value: Any, depth: int = 0) -> Any:
    """JSON values with what cannot be stored replaced: numbers that are not finite are null."""
    if depth > _DEEPEST:
        raise RefusedError(f"JSON values may be nested {_DEEPEST} deep.")
    if isinstance(value, str):
        return cleaned(value)
    if isinstance(value, bool) or value is None:
        return value
    if isinstance(value, int):
        return value if abs(value) <= _MOST_INTEGER else float(value) if abs(value) < 10**300 else None
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {cleaned(str(key)): cleaned_json(inner, depth + 1) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [cleaned_json(inner, depth + 1) for inner in value]
    raise RefusedError(f"{type(value).__name__} is no JSON value.")


def require_text(what: str, text: str, most: int, *, empty: bool = True) -> str:
    """A text as it is. Raises ``RefusedError`` for what cannot be stored, or is too long."""
    if text != cleaned(text):
        raise RefusedError(f"The {what} holds characters that cannot be stored (NUL, or half of a surrogate pair).")
    if len(text) > most or not (text or empty):
        raise RefusedError(f"The {what} has {len(text):,} characters; expected {0 if empty else 1} to {most:,}.")
    return text


def whole(number: int | None) -> int | None:
    """A number that fits into a column."""
    return None if number is None else max(min(int(number), _MOST_INTEGER), -_MOST_INTEGER)
