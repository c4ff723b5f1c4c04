"""A recipe as it comes in over the network: JSON or YAML of bounded size, depth and numbers."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from compressor.jobs.recipes.read import RecipeError
from compressor.options import shown
from compressor.storage.reading import Limits, parse_json
from compressor.storage.yaml_text import MOST_DEPTH, Document, Keys, parse_yaml

MOST_BYTES = 1 << 16
"""Of a recipe. Those that people write have a kilobyte or two; YAML of this size takes half a second to read."""
LIMITS = Limits(MOST_BYTES, 5_000, 1_000)
YAML_TYPES = ("application/yaml", "application/x-yaml", "text/yaml", "text/x-yaml")


@dataclass(frozen=True)
class Written:
    """A recipe as it is written: its values, its text, and whether that is YAML, whose values are texts."""

    values: Mapping[str, Any]
    text: str
    is_yaml: bool = False

    @cached_property
    def lines(self) -> Mapping[Keys, int]:
        """Where its keys stand; empty where that cannot be told. Found when a mistake is to be told, since it takes
        longer than reading."""
        found = Document(None)
        with suppress(ValueError):
            found = parse_yaml(self.text.encode())  # JSON is read as YAML, too
        return found.lines


def read_body(data: bytes, content_type: str) -> Written:
    """A body by its media type: YAML if that says so, else JSON.

    Raises:
        RecipeError: it is too large or too deep, it cannot be read, or no mapping stands at its top.
    """
    is_yaml = content_type.partition(";")[0].strip().lower() in YAML_TYPES
    try:
        value = _yaml(data) if is_yaml else parse_bounded(data, LIMITS)
    except ValueError as error:
        line = _line(str(error))
        raise RecipeError(
            f"The recipe cannot be read as {'YAML' if is_yaml else 'JSON'}: {error}.", line=line
        ) from error
    if not isinstance(value, dict):
        said = "is empty" if value is None else f"is {shown(value)}"
        raise RecipeError(f"The recipe {said}; it has keys with values, such as model and budgets.")
    return Written(value, data.decode("utf-8-sig" if is_yaml else "utf-8"), is_yaml)


def parse_bounded(data: bytes, limits: Limits) -> Any:
    """JSON that is nested no deeper than recipes may be. Raises ``ValueError`` that says what is wrong with it."""
    value = parse_json(data, limits=limits)
    level = [value]
    for _ in range(MOST_DEPTH + 1):
        level = [each for inner in level for each in _inside(inner)]
        if not level:
            return value
    raise ValueError(f"it is nested more than {MOST_DEPTH} deep")


def _inside(value: Any) -> list[Any]:
    return list(value.values()) if isinstance(value, dict) else value if isinstance(value, list) else []


def _yaml(data: bytes) -> Any:
    if len(data) > MOST_BYTES:
        raise ValueError(f"it has {len(data):,} bytes, and {MOST_BYTES:,} are the most")
    return parse_yaml(data).value


def _line(text: str) -> int | None:
    """The line that a reader's message names: ``line 3: ...``, or ``... line 3 column 5 ...`` of the JSON library."""
    _, found, rest = text.partition("line ")
    digits = rest[: len(rest) - len(rest.lstrip("0123456789"))]
    return int(digits) if found and digits and len(digits) < 10 else None
