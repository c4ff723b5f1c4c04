"""Dataclasses to plain JSON values and back, with errors that say where a value is wrong."""

from __future__ import annotations

import math
import types
from dataclasses import MISSING, fields, is_dataclass
from typing import Any, TypeVar, Union, get_args, get_origin, get_type_hints

from compressor.errors import UsageError

T = TypeVar("T")


def encode(value: Any) -> Any:
    """JSON values of dataclasses, lists, tuples and dictionaries; what is not finite becomes ``None``."""
    if is_dataclass(value) and not isinstance(value, type):
        return {field.name: encode(getattr(value, field.name)) for field in fields(value)}
    if isinstance(value, dict):
        return {str(key): encode(entry) for key, entry in value.items()}
    if isinstance(value, (list, tuple)):
        return [encode(entry) for entry in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if hasattr(value, "item"):  # numpy and torch scalars
        return encode(value.item())
    return str(value)


def decode(kind: type[T], value: Any, place: str) -> T:
    """An instance of the dataclass ``kind``; unknown keys are left out.

    Raises:
        UsageError: a field is missing or of the wrong type; ``place`` leads to it.
    """
    if not isinstance(value, dict):
        raise _wrong(place, "an object", value)
    hints = get_type_hints(kind)
    arguments = {}
    for field in fields(kind):  # type: ignore[arg-type]
        if field.name in value:
            arguments[field.name] = _decode(hints[field.name], value[field.name], f"{place}.{field.name}")
        elif field.default is MISSING and field.default_factory is MISSING:
            raise UsageError(f"{place}.{field.name} is missing; the file is damaged or was written by something else.")
    return kind(**arguments)


def _decode(hint: Any, value: Any, place: str) -> Any:
    origin, inner = get_origin(hint), get_args(hint)
    if hint is Any:
        return value
    if origin in (Union, types.UnionType):
        if value is None and type(None) in inner:
            return None
        return _decode(next(option for option in inner if option is not type(None)), value, place)
    if origin is list:
        if not isinstance(value, list):
            raise _wrong(place, "a list", value)
        return [_decode(inner[0], entry, f"{place}[{index}]") for index, entry in enumerate(value)]
    if origin is dict:
        if not isinstance(value, dict):
            raise _wrong(place, "an object", value)
        return {key: _decode(inner[1], entry, f"{place}.{key}") for key, entry in value.items()}
    if is_dataclass(hint):
        return decode(hint, value, place)  # type: ignore[arg-type]
    if hint is float and value is None:
        return math.nan  # what is not finite was written as null
    accepted = (int, float) if hint is float else hint
    if not isinstance(value, accepted) or (isinstance(value, bool) and hint is not bool):
        raise _wrong(place, hint.__name__, value)
    return float(value) if hint is float else value


def _wrong(place: str, expected: str, value: Any) -> UsageError:
    text = repr(value)
    return UsageError(f"{place} should be {expected}, not {text if len(text) < 60 else text[:57] + '...'}.")
