"""What options take, said once: checks, messages, the command line's types and the tables in the docs come from it.

A *kind* says which values an option takes and reads them; ``option`` makes a dataclass field of a kind, and a dataclass
that derives from ``Options`` reads every such field when it is made. Nothing here imports torch.
"""

from __future__ import annotations

import math
import numbers
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, ClassVar, Protocol, Self

from compressor.errors import UsageError
from compressor.plugins.registry import closest

MOST = 2**31 - 1  # of anything counted: what PyTorch's own arguments take everywhere
_DIGITS = 40  # of a number in text; longer ones are no number that anyone means


class Kind(Protocol):
    """Which values an option takes. ``expected`` ends the sentence "it must be ..."; ``choices``, where there are any,
    are the names among which a mistyped one is looked for."""

    @property
    def expected(self) -> str: ...

    def read(self, value: Any) -> Any:
        """The value as the program uses it. Raises ``ValueError`` if it is none."""
        ...


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
    """True or false."""

    expected: ClassVar[str] = "True or False"

    def read(self, value: Any) -> bool:
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

    def read(self, value: Any) -> str:
        if not isinstance(value, str) or not value.strip() or "\0" in value:
            raise ValueError
        return value


@dataclass(frozen=True)
class Place:
    """The name of a file or folder."""

    expected: ClassVar[str] = "the name of a file or folder, which can be written as text"

    def read(self, value: Any) -> str | Path:
        if not isinstance(value, (str, os.PathLike)) or not os.fspath(value) or "\0" in str(value):
            raise ValueError
        str(value).encode()  # reports and commands name it; UnicodeEncodeError is a ValueError
        return value if isinstance(value, (str, Path)) else Path(os.fspath(value))


@dataclass(frozen=True)
class Patterns:
    """Shell-style patterns; a text by itself is one pattern."""

    expected: ClassVar[str] = "a pattern over module names, or several"

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

    def read(self, value: Any) -> Any:
        try:
            return self.first.read(value)
        except ValueError:
            return self.second.read(value)


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


def option(default: Any, kind: Kind, doc: str, *, optional: bool | None = None) -> Any:
    """A dataclass field of this kind. ``optional``: whether None is allowed; by default where it is the default."""
    metadata = {"kind": kind, "doc": doc, "optional": default is None if optional is None else optional}
    return field(default=default, metadata=metadata)


@dataclass(frozen=True)
class Described:
    """One option for tables: ``takes`` in words, the default as one would write it."""

    name: str
    takes: str
    default: str
    doc: str


@dataclass(frozen=True)
class Options:
    """Base of what has options: reads every field of a kind. Raises ``UsageError`` for a value that is none."""

    owner: ClassVar[str] = ""

    def __post_init__(self) -> None:
        for each in fields(self):
            if "kind" in each.metadata:
                value = getattr(self, each.name)
                checked = read(each.name, each.metadata["kind"], value, optional=each.metadata["optional"])
                object.__setattr__(self, each.name, checked)

    @classmethod
    def from_options(cls, given: Mapping[str, Any]) -> Self:
        """The options in a mapping. Raises ``UsageError`` for one that does not exist, with the closest that does."""
        if not isinstance(given, Mapping):
            raise UsageError(f"The options of {cls.owner} must be a mapping of names to values, not {shown(given)}.")
        known = [each.name for each in fields(cls)]
        for name in given:
            if name not in known:
                near = closest(name, known, n=1) if isinstance(name, str) else []
                hint = f" Did you mean {near[0]}?" if near else ""  # the names that follow are many
                wanted = name if isinstance(name, str) else shown(name)
                raise UsageError(f"{cls.owner} has no option {wanted}.{hint} It has {', '.join(sorted(known))}.")
        return cls(**given)

    @classmethod
    def described(cls) -> list[Described]:
        """All options, for tables."""
        found = []
        for each in fields(cls):
            kind = each.metadata.get("kind")
            if kind is not None:
                default = "" if each.default is None else str(each.default)
                found.append(Described(each.name, kind.expected, default, each.metadata["doc"]))
        return found


def table(described: Iterable[Described]) -> str:
    """Options as a table in Markdown."""
    rows = [f"| `{d.name}` | {d.takes} | {f'`{d.default}`' if d.default else ''} | {d.doc} |" for d in described]
    return "\n".join(["| option | takes | default | what it is |", "| --- | --- | --- | --- |", *rows])
