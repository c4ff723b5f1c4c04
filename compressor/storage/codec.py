"""Dataclasses to plain JSON values and back: the schema of every document that the program reads.

A document is declared once, as a dataclass with types. ``decode`` checks a value against it, and its errors say where
in the document a value is wrong.
"""

from __future__ import annotations

import math
import types
from collections.abc import Mapping
from dataclasses import MISSING, dataclass, field, fields, is_dataclass
from typing import Annotated, Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from compressor.errors import UsageError

T = TypeVar("T")


@dataclass(frozen=True)
class Range:
    """Bounds of a number, both allowed: ``Annotated[int, Range(1, 10)]``. What is not finite is out of them."""

    least: float = -math.inf
    most: float = math.inf


@dataclass(frozen=True, eq=False)  # types are hashed, and mappings cannot be
class Keys:
    """What an object must have by name, and what it may have; other keys are let through as they are:
    ``Annotated[dict[str, Any], Keys({"median_ms": float})]``."""

    types: Mapping[str, Any]
    optional: Mapping[str, Any] = field(default_factory=dict)


def encode(value: Any) -> Any:
    """JSON values of dataclasses, lists, tuples and dictionaries; what is not finite becomes ``None``."""
    if is_dataclass(value) and not isinstance(value, type):
        return {entry.name: encode(getattr(value, entry.name)) for entry in fields(value)}
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
    hints = get_type_hints(kind, include_extras=True)
    arguments = {}
    for entry in fields(kind):  # type: ignore[arg-type]
        if entry.name in value:
            arguments[entry.name] = check(hints[entry.name], value[entry.name], f"{place}.{entry.name}")
        elif entry.default is MISSING and entry.default_factory is MISSING:
            raise UsageError(f"{place}.{entry.name} is missing; the file is damaged or was written by something else.")
    return kind(**arguments)


def check(hint: Any, value: Any, place: str) -> Any:
    """``value`` as the type ``hint`` has it: Any, a union, list, dict, Literal, Annotated, a dataclass or a scalar.

    Raises ``UsageError`` with the place of what is wrong.
    """
    origin, inner = get_origin(hint), get_args(hint)
    if hint is Any:
        return value
    if origin is Annotated:
        return _bounded(check(inner[0], value, place), inner[1:], place)
    if origin is Literal:
        if value not in inner or isinstance(value, bool):
            raise _wrong(place, f"one of {', '.join(map(str, inner))}", value)
        return value
    if origin in (Union, types.UnionType):
        return _one_of(inner, value, place)
    if origin is list:
        if not isinstance(value, list):
            raise _wrong(place, "a list", value)
        if inner[0] is int and all(type(entry) is int for entry in value):
            return value  # indices by the hundred thousand
        return [check(inner[0], entry, f"{place}[{index}]") for index, entry in enumerate(value)]
    if origin is dict:
        if not isinstance(value, dict):
            raise _wrong(place, "an object", value)
        return {key: check(inner[1], entry, f"{place}.{_name(key)}") for key, entry in value.items()}
    if is_dataclass(hint):
        return decode(hint, value, place)  # type: ignore[arg-type]
    if hint is float and value is None:
        return math.nan  # what is not finite was written as null
    accepted = (int, float) if hint is float else hint
    if not isinstance(value, accepted) or (isinstance(value, bool) and hint is not bool):
        raise _wrong(place, _TYPES.get(hint, hint.__name__), value)
    return float(value) if hint is float else value


_TYPES = {int: "a whole number", float: "a number", str: "text", bool: "true or false"}


def _one_of(options: tuple[Any, ...], value: Any, place: str) -> Any:
    if value is None and type(None) in options:
        return None
    others = [option for option in options if option is not type(None)]
    for option in others[:-1]:
        try:
            return check(option, value, place)
        except UsageError:
            continue
    return check(others[-1], value, place)


def _bounded(value: Any, rules: tuple[Any, ...], place: str) -> Any:
    for rule in rules:
        if isinstance(rule, Range) and not rule.least <= value <= rule.most:
            raise _wrong(place, f"from {rule.least:g} to {rule.most:g}", value)
        if isinstance(rule, Keys):
            if lacking := next((key for key in rule.types if key not in value), None):
                raise UsageError(f"{place}.{lacking} is missing; the file is damaged or was written by something else.")
            hints = {**rule.types, **rule.optional}
            value = {key: check(hints.get(key, Any), entry, f"{place}.{_name(key)}") for key, entry in value.items()}
    return value


def _name(key: str) -> str:
    return key if len(key) <= 60 else key[:57] + "..."


def _wrong(place: str, expected: str, value: Any) -> UsageError:
    if isinstance(value, dict):
        text = "an object"
    else:
        text = repr(value[:60]) if isinstance(value, (str, list)) else repr(value)
    return UsageError(f"{place} should be {expected}, not {text if len(text) < 60 else text[:57] + '...'}.")
