"""What a user may ask to keep, as it is written: least widths by pattern, and channels by layer.

Nothing here imports torch: the command line reads these, too.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from compressor.options import Number, Patterns, Whole, texts_schema


@dataclass(frozen=True)
class Least:
    """A least width of the layers that a pattern matches: a number of channels, or a share of what a layer has."""

    pattern: str
    value: float
    relative: bool
    text: str

    def share(self, width: int) -> float:
        """Of a layer's ``width`` channels."""
        return min(1.0, self.value if self.relative else self.value / width)


def parse_least(pattern: object, given: object) -> Least:
    """Read one least width, such as ``"layer4*"`` and ``"50%"`` or ``16``. Raises ``ValueError`` if it is none."""
    if not isinstance(pattern, str) or not pattern.strip():
        raise ValueError
    pattern, text = pattern.strip(), given.strip() if isinstance(given, str) else given
    if isinstance(text, str) and text.endswith("%"):
        share = Number(above=0, most=100).read(text[:-1])
        return Least(pattern, share / 100, True, f"{pattern}={share:g}%")
    width = Whole(1).read(text)
    return Least(pattern, width, False, f"{pattern}={width}")


@dataclass(frozen=True)
class LeastWidths:
    """Least widths by pattern: a mapping, or texts such as ``layer4*=50%``."""

    expected: ClassVar[str] = "patterns with a number of channels or a share, such as layer4*=50% or conv1=16"

    def schema(self) -> dict[str, Any]:
        width = {"anyOf": [Whole(1).schema(), {"type": "string"}]}
        return {"anyOf": [*texts_schema()["anyOf"], {"type": "object", "additionalProperties": width}]}

    def read(self, value: Any) -> tuple[Least, ...]:
        """All of them, in order. Raises ``ValueError``."""
        if isinstance(value, Mapping):
            return tuple(parse_least(pattern, given) for pattern, given in value.items())
        found = []
        for each in (value,) if isinstance(value, str) else value:
            if isinstance(each, Least):
                found.append(each)
            elif isinstance(each, str) and "=" in each:
                pattern, _, given = each.rpartition("=")
                found.append(parse_least(pattern, given))
            else:
                raise ValueError
        return tuple(found)


@dataclass(frozen=True)
class WrittenWidths:
    """The same, kept as they were written, which is what a job stores; a mapping as such texts."""

    expected: ClassVar[str] = LeastWidths.expected

    def schema(self) -> dict[str, Any]:
        return LeastWidths().schema()

    def read(self, value: Any) -> tuple[str, ...]:
        """All of them, in order. Raises ``ValueError``."""
        found = LeastWidths().read(value)
        return tuple(each.text for each in found) if isinstance(value, Mapping) else Patterns().read(value)


@dataclass(frozen=True)
class ChosenChannels:
    """Channels to keep, by layer."""

    expected: ClassVar[str] = "a mapping of layers to the channels to keep, such as {'layer1.0.conv1': [0, 3, 5]}"

    def read(self, value: Any) -> dict[str, tuple[int, ...]]:
        """By name. Raises ``ValueError``."""
        if not isinstance(value, Mapping) or not all(isinstance(name, str) for name in value):
            raise ValueError
        if any(isinstance(each, (str, bytes, Mapping)) for each in value.values()):
            raise ValueError
        return {name: tuple(Whole(0).read(i) for i in each) for name, each in value.items()}
