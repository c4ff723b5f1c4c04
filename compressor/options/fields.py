"""Options as fields of dataclasses: checks, messages and the tables in the docs come from them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields
from typing import Any, ClassVar, Self

from compressor.errors import UsageError
from compressor.options.kinds import Kind, read, shown
from compressor.plugins.registry import closest


def option(default: Any, kind: Kind, doc: str, *, optional: bool | None = None) -> Any:
    """A dataclass field of this kind. ``optional``: whether None is allowed; by default where it is the default."""
    metadata = {"kind": kind, "doc": doc, "optional": default is None if optional is None else optional}
    return field(default=default, metadata=metadata)


def redeclared(base: type, name: str, default: Any, *, optional: bool | None = None) -> Any:
    """The option that ``base`` has by this name, with another default; ``optional`` as for ``option``."""
    (found,) = (each for each in fields(base) if each.name == name)
    return option(default, found.metadata["kind"], found.metadata["doc"], optional=optional)


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

    def values(self, of: type[Options] | None = None) -> dict[str, Any]:
        """What it holds by name: all, or what ``of`` has, which it derives from."""
        return {each.name: getattr(self, each.name) for each in fields(of or self)}

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
