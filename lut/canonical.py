"""The text form of keys: versioned, one line, the same for equal keys on every machine.

``kind/1 {"a":1,"b":[2,3]}``: what it is, the version of the form, then JSON with sorted names. A field that has its
default value is left out, so a later version may add a field (with a default) and every key written before stays valid.
"""

from __future__ import annotations

import dataclasses
import json
from typing import Any

from lut.errors import InvalidKeyError

VERSION = 1
_LONGEST = 4_000_000


def to_plain(value: Any) -> Any:
    """Dataclasses become dictionaries without default-valued fields, tuples become lists."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        items = ((field, getattr(value, field.name)) for field in dataclasses.fields(value))
        return {field.name: to_plain(item) for field, item in items if item != field.default}
    if isinstance(value, tuple):
        return [to_plain(item) for item in value]
    return value


def to_tuple(value: Any) -> Any:
    """Lists become tuples, all the way down."""
    return tuple(to_tuple(item) for item in value) if isinstance(value, list) else value


def dump(kind: str, value: Any) -> str:
    """The canonical text of a dataclass."""
    return f"{kind}/{VERSION} {json.dumps(to_plain(value), sort_keys=True, separators=(',', ':'))}"


def load(kind: str, text: str) -> dict[str, Any]:
    """The fields in a canonical text. Raises ``InvalidKeyError`` for another kind, a newer version or broken JSON."""
    if not isinstance(text, str):
        raise InvalidKeyError(f"Expected the key of a {kind}, found a {type(text).__name__}.")
    head, _, body = text.partition(" ")
    name, _, version = head.partition("/")
    if name != kind or not version.isdecimal() or len(version) > 9:
        raise InvalidKeyError(f"Expected a key that starts with '{kind}/{VERSION} ', found {text[:60]!r}.")
    if int(version) > VERSION:
        raise InvalidKeyError(
            f"The {kind} key has version {version}, this program reads up to {VERSION}: update it to use this table."
        )
    try:
        return parse(body)
    except ValueError as error:
        raise InvalidKeyError(f"The {kind} key {text[:60]!r} is not valid: {error}.") from error


def parse(text: str) -> dict[str, Any]:
    """A JSON object of moderate size. Raises ``InvalidKeyError``."""
    if not isinstance(text, str) or len(text) > _LONGEST:
        raise InvalidKeyError(f"Expected a JSON text of at most {_LONGEST:,} characters.")
    try:
        fields = json.loads(text)
    except RecursionError:
        raise InvalidKeyError("The JSON text is nested too deeply.") from None
    except ValueError as error:
        raise InvalidKeyError(f"The JSON text is damaged: {error}.") from error
    if not isinstance(fields, dict):
        raise InvalidKeyError(f"Expected a JSON object, found {text[:40]!r}.")
    return fields
