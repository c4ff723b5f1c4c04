"""Which values options take: each kind reads them, and says in words what it expects."""

from __future__ import annotations

import math
import numbers
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Protocol

from compressor.errors import UsageError
from compressor.plugins.registry import closest

MOST = 2**31 - 1  # of anything counted: what PyTorch's own arguments take everywhere
MOST_ELEMENTS = 2**28  # of one input: a gigabyte of floats
_DIGITS = 40  # of a number in text; longer ones are no number that anyone means


class Kind(Protocol):
    """Which values an option takes. ``expected`` ends the sentence "it must be ..."; ``choices``, where there are any,
    are the names among which a mistyped one is looked for."""

    @property
    def expected(self) -> str: ...

    def read(self, value: Any) -> Any:
        """The value as the program uses it. Raises ``ValueError`` if it is none."""
        ...


def schema_of(kind: Kind) -> dict[str, Any]:
    """What a kind takes as JSON Schema: what its ``schema`` says, if it has one, else in words alone."""
    said = getattr(kind, "schema", None)
    return dict(said()) if said is not None else {"description": f"It must be {kind.expected}."}


@dataclass(frozen=True)
class Whole:
    """A whole number; ``True`` and ``3.0`` are none. Text is read, too."""

    least: int = 0
    most: int = MOST

    @property
    def expected(self) -> str:
        if self.most == MOST:
            return f"a whole number of at least {self.least}"
        return f"a whole number from {self.least} to {self.most}"

    def schema(self) -> dict[str, Any]:
        return {"type": "integer", "minimum": self.least, "maximum": self.most}

    def read(self, value: Any) -> int:
        if isinstance(value, str):
            value = int(_number_text(value))
        if isinstance(value, bool) or not isinstance(value, numbers.Integral):
            raise ValueError
        number = int(value)
        if not self.least <= number <= self.most:
            raise ValueError
        return number


@dataclass(frozen=True)
class Number:
    """A finite number above ``above`` or from ``least`` on, up to ``most`` or below ``below``. Text is read, too."""

    above: float | None = None
    least: float | None = None
    most: float | None = None
    below: float | None = None

    @property
    def expected(self) -> str:
        if self.least is not None and (self.most is not None or self.below is not None):
            end = f"{self.most:g}" if self.most is not None else f"below {self.below:g}"
            return f"a number from {self.least:g} to {end}"
        parts = [("above", self.above), ("of at least", self.least), ("of at most", self.most), ("below", self.below)]
        said = " and ".join(
            f"{word} {limit:g}" if limit else f"{word} zero" for word, limit in parts if limit is not None
        )
        return f"a number {said}" if said else "a finite number"

    def schema(self) -> dict[str, Any]:
        limits = {
            "exclusiveMinimum": self.above,
            "minimum": self.least,
            "maximum": self.most,
            "exclusiveMaximum": self.below,
        }
        return {"type": "number"} | {name: limit for name, limit in limits.items() if limit is not None}

    def read(self, value: Any) -> float:
        if isinstance(value, str):
            value = float(_number_text(value))
        if isinstance(value, bool) or not isinstance(value, numbers.Real):
            raise ValueError
        try:
            number = float(value)
        except OverflowError as error:
            raise ValueError from error
        inside = (
            math.isfinite(number)
            and (self.above is None or number > self.above)
            and (self.least is None or number >= self.least)
            and (self.most is None or number <= self.most)
            and (self.below is None or number < self.below)
        )
        if not inside:
            raise ValueError
        return number


@dataclass(frozen=True)
class Flag:
    """True or false; the words are read, too."""

    expected: ClassVar[str] = "True or False"

    def schema(self) -> dict[str, Any]:
        return {"type": "boolean"}

    def read(self, value: Any) -> bool:
        if isinstance(value, str) and value.strip().lower() in ("true", "false"):
            return value.strip().lower() == "true"
        if not isinstance(value, bool):
            raise ValueError
        return value


@dataclass(frozen=True)
class OneOf:
    """One of some names; ``names`` may be a function where plug-ins add to them."""

    names: Iterable[str] | Callable[[], Iterable[str]]

    @property
    def choices(self) -> list[str]:
        return list(self.names() if callable(self.names) else self.names)

    @property
    def expected(self) -> str:
        return f"one of {', '.join(self.choices)}"

    def schema(self) -> dict[str, Any]:
        return {"enum": self.choices}

    def read(self, value: Any) -> str:
        if not isinstance(value, str) or value not in self.choices:
            raise ValueError
        return value


@dataclass(frozen=True)
class SomeOf:
    """At least one of some names, as a sequence or separated by commas; repetitions go."""

    names: tuple[str, ...]

    @property
    def choices(self) -> list[str]:
        return list(self.names)

    @property
    def expected(self) -> str:
        return f"one or more of {', '.join(self.names)}"

    def schema(self) -> dict[str, Any]:
        several = {"type": "array", "items": {"enum": self.choices}, "minItems": 1}
        return {"anyOf": [several, {"type": "string"}]}

    def read(self, value: Any) -> tuple[str, ...]:
        parts = [part.strip() for part in value.split(",") if part.strip()] if isinstance(value, str) else value
        if not isinstance(parts, Sequence):
            raise ValueError
        for part in parts:
            if not isinstance(part, str) or part not in self.names:
                raise ValueError
        if not parts:
            raise ValueError
        return tuple(dict.fromkeys(parts))


@dataclass(frozen=True)
class Text:
    """Text that is not empty."""

    expected: ClassVar[str] = "a text that is not empty"

    def schema(self) -> dict[str, Any]:
        return {"type": "string", "minLength": 1}

    def read(self, value: Any) -> str:
        if not isinstance(value, str) or not value.strip() or "\0" in value:
            raise ValueError
        return value


@dataclass(frozen=True)
class Place:
    """The name of a file or folder."""

    expected: ClassVar[str] = "the name of a file or folder, which can be written as text"

    def schema(self) -> dict[str, Any]:
        return {"type": "string", "minLength": 1}

    def read(self, value: Any) -> str | Path:
        if not isinstance(value, (str, os.PathLike)) or not os.fspath(value) or "\0" in str(value):
            raise ValueError
        str(value).encode()  # reports and commands name it; UnicodeEncodeError is a ValueError
        return value if isinstance(value, (str, Path)) else Path(os.fspath(value))


@dataclass(frozen=True)
class Patterns:
    """Shell-style patterns; a text by itself is one pattern."""

    expected: ClassVar[str] = "a pattern over module names, or several"

    def schema(self) -> dict[str, Any]:
        return texts_schema()

    def read(self, value: Any) -> tuple[str, ...]:
        if isinstance(value, str):
            value = (value,)
        if not isinstance(value, Iterable) or isinstance(value, Mapping):
            raise ValueError
        found = tuple(value)
        if not all(isinstance(each, str) and each.strip() for each in found):
            raise ValueError
        return found


@dataclass(frozen=True)
class Names:
    """Different names, as a sequence or separated by commas; the word ``none`` is no name."""

    expected: ClassVar[str] = "names separated by commas, or none"

    def schema(self) -> dict[str, Any]:
        return texts_schema()

    def read(self, value: Any) -> tuple[str, ...]:
        """All of them once, in order. Raises ``ValueError``."""
        parts = value.split(",") if isinstance(value, str) else value
        if not isinstance(parts, (tuple, list)) or not all(isinstance(part, str) for part in parts):
            raise ValueError
        names = tuple(dict.fromkeys(part.strip() for part in parts if part.strip()))
        return () if names == ("none",) else names


@dataclass(frozen=True)
class Called:
    """A function. ``said`` is how it is called."""

    said: str

    @property
    def expected(self) -> str:
        return f"a function called as {self.said}"

    def read(self, value: Any) -> Any:
        if isinstance(value, type) or not callable(value):
            raise ValueError
        return value


@dataclass(frozen=True)
class Either:
    """What one of two kinds takes; the first one's message is the one for text."""

    first: Kind
    second: Kind

    @property
    def expected(self) -> str:
        return f"{self.first.expected}, or {self.second.expected}"

    @property
    def choices(self) -> list[str]:
        return getattr(self.first, "choices", [])

    def schema(self) -> dict[str, Any]:
        """That of both; functions cannot be written down."""
        written = [schema_of(kind) for kind in (self.first, self.second) if not isinstance(kind, Called)]
        return written[0] if len(written) == 1 else {"anyOf": written}

    def read(self, value: Any) -> Any:
        try:
            return self.first.read(value)
        except ValueError:
            return self.second.read(value)


@dataclass(frozen=True)
class Shape:
    """Positive sizes of one input, such as ``3,224,224``; text is read, too."""

    expected: ClassVar[str] = f"positive sizes such as 3,224,224, of at most {MOST_ELEMENTS:,} elements"

    def schema(self) -> dict[str, Any]:
        sizes = {"type": "array", "items": Whole(1).schema(), "minItems": 1}
        return {"anyOf": [sizes, {"type": "string"}]}

    def read(self, value: Any) -> tuple[int, ...]:
        """The sizes. Raises ``ValueError``."""
        parts = value.replace("x", ",").split(",") if isinstance(value, str) else value
        if not isinstance(parts, (tuple, list)):
            raise ValueError
        sizes = tuple(Whole(1).read(part) for part in parts)
        if not sizes or math.prod(sizes) > MOST_ELEMENTS:
            raise ValueError
        return sizes


@dataclass(frozen=True)
class Wholes:
    """Different whole numbers, one at least, as a sequence or separated by commas."""

    least: int = 1
    most: int = MOST
    odd: bool = False

    @property
    def expected(self) -> str:
        kind = "odd" if self.odd else "whole"
        return f"one or more different {kind} numbers from {self.least} to {self.most}, such as 3,5,7"

    def schema(self) -> dict[str, Any]:
        each = Whole(self.least, self.most).schema()
        return {"anyOf": [{"type": "array", "items": each, "minItems": 1, "uniqueItems": True}, {"type": "string"}]}

    def read(self, value: Any) -> tuple[int, ...]:
        parts = value.split(",") if isinstance(value, str) else value
        if not isinstance(parts, (tuple, list)):
            raise ValueError
        found = tuple(Whole(self.least, self.most).read(part) for part in parts)
        if not found or len(set(found)) < len(found) or (self.odd and any(n % 2 == 0 for n in found)):
            raise ValueError
        return found


def texts_schema() -> dict[str, Any]:
    """JSON Schema of one text or several."""
    return {"anyOf": [{"type": "array", "items": {"type": "string"}}, {"type": "string"}]}


def shown(value: Any) -> str:
    """A value as messages show it: on one line and not too long."""
    try:
        text = repr(value)
    except ValueError:  # a whole number of thousands of digits
        text = f"a number of {int(math.log10(abs(value))) + 1} digits"
    text = " ".join(text.split())
    return text if len(text) <= 80 else f"{text[:60]}... ({len(text)} characters)"


def read(name: str, kind: Kind, value: Any, *, optional: bool = False) -> Any:
    """The value of the option ``name``. Raises ``UsageError`` with what it takes."""
    if value is None and optional:
        return None
    try:
        return kind.read(value)
    except (ValueError, TypeError) as error:
        hint = _hint(value, getattr(kind, "choices", []))
        raise UsageError(f"{name} must be {kind.expected}, not {shown(value)}.{hint}") from error


def _hint(value: Any, choices: list[str]) -> str:
    near = closest(value, choices, n=1) if isinstance(value, str) and len(value) <= 80 else []
    return f" Did you mean {near[0]}?" if near else ""


def _number_text(text: str) -> str:
    if len(text) > _DIGITS:
        raise ValueError
    return text.strip()
