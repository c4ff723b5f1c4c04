"""YAML that anybody may have written, read as lists, mappings and texts.

YAML guesses types from how a value looks, and guesses differ: ``no`` is a boolean, ``1:30`` ninety, ``2e9`` text. Here
nothing is guessed: a value is the text that stands there, as a word of a command line is, and whoever asked for it
knows what it is to be. Only an empty value, ``~`` and ``null`` are None. Tags, anchors and aliases are refused, so a
document makes no objects and is as large as its text.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from compressor.storage.reading import size_text

MOST_BYTES = 1 << 18
MOST_VALUES = 20_000
MOST_DEPTH = 8
_NULL = ("", "~", "null", "Null", "NULL")

Keys = tuple[str | int, ...]


@dataclass(frozen=True)
class Document:
    """``value`` is made of lists, mappings, texts and None; ``lines`` says where each stands, by its keys from the top,
    counted from 1."""

    value: Any
    lines: dict[Keys, int] = field(default_factory=dict)


def parse_yaml(data: bytes) -> Document:
    """The one document in ``data``. Raises ``ValueError`` that says what is wrong with it and in which line."""
    import yaml

    if len(data) > MOST_BYTES:
        raise ValueError(f"it has {size_text(len(data))}, more than {size_text(MOST_BYTES)}")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise ValueError(f"line {line}: it is no text in UTF-8") from error
    try:
        return _Builder(yaml.parse(text, Loader=yaml.SafeLoader)).document()
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = "" if mark is None else f"line {mark.line + 1}: "
        raise ValueError(f"{where}{error.problem or error.context}{_cure(error)}") from error
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        raise ValueError(f"line {line}: the character {chr(error.character)!r} cannot stand there") from error


class _Builder:
    """Values from the events of a parser, one after the other, so that what is too large is never built."""

    def __init__(self, events: Iterator[Any]) -> None:
        self._events = events
        self._count = 0
        self.lines: dict[Keys, int] = {}

    def document(self) -> Document:
        import yaml

        value = None
        documents = 0
        for event in self._events:
            if isinstance(event, yaml.DocumentStartEvent):
                documents += 1
                if documents > 1:
                    raise ValueError(f"{_at(event)}a second document begins; keep one")
                value = self._value(next(self._events), ())
        return Document(value, self.lines)

    def _value(self, event: Any, path: Keys) -> Any:
        import yaml

        self._count += 1
        if self._count > MOST_VALUES:
            raise ValueError(f"{_at(event)}there are more than {MOST_VALUES} values")
        if len(path) > MOST_DEPTH:
            raise ValueError(f"{_at(event)}it is nested more than {MOST_DEPTH} deep")
        self._require_plain(event)
        self.lines.setdefault(path, event.start_mark.line + 1)
        if isinstance(event, yaml.ScalarEvent):
            return None if event.style is None and event.value in _NULL else event.value
        if isinstance(event, yaml.SequenceStartEvent):
            return list(self._items(path))
        return self._mapping(path)

    def _items(self, path: Keys) -> Iterator[Any]:
        import yaml

        for index, event in enumerate(self._events):
            if isinstance(event, yaml.SequenceEndEvent):
                return
            yield self._value(event, (*path, index))

    def _mapping(self, path: Keys) -> dict[str, Any]:
        import yaml

        found: dict[str, Any] = {}
        for event in self._events:
            if isinstance(event, yaml.MappingEndEvent):
                break
            self._require_plain(event)
            if not isinstance(event, yaml.ScalarEvent):
                raise ValueError(f"{_at(event)}a key must be a text, no list or mapping")
            key = event.value
            here = (*path, key)
            if key in found:
                raise ValueError(f"{_at(event)}the key {key[:60]!r} stands in line {self.lines[here]} already")
            self.lines[here] = event.start_mark.line + 1
            found[key] = self._value(next(self._events), here)
        return found

    def _require_plain(self, event: Any) -> None:
        import yaml

        if isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None) is not None:
            sign = "*" if isinstance(event, yaml.AliasEvent) else "&"
            raise ValueError(
                f"{_at(event)}anchors and aliases ({sign}{event.anchor[:60]}) are not read; write the value itself, in "
                "quotes if it begins with that sign"
            )
        if getattr(event, "tag", None) is not None:
            raise ValueError(
                f"{_at(event)}tags ({event.tag[:60]}) are not read; write the value without, in quotes if it begins "
                "with an exclamation mark"
            )


def _cure(error: Any) -> str:
    """What to do about the mistakes that are made most."""
    said = f"{error.context} {error.problem}"
    if "scanning an alias" in said or "scanning an anchor" in said:
        return "; put a text that begins with * or & in quotes"
    if "'\\t'" in said:
        return "; indent with spaces"
    if "cannot start any token" in said:
        return "; put the text in quotes"
    if "mapping values are not allowed" in said:
        return "; put a text with a colon and a space in quotes"
    return ""


def _at(event: Any) -> str:
    return f"line {event.start_mark.line + 1}: "


def dump_yaml(value: Any) -> str:
    """Mappings as blocks in the order in which they stand, lists on one line: what ``parse_yaml`` reads again."""
    import yaml

    class Dumper(yaml.SafeDumper):  # type: ignore[misc]  # it has no types
        def represent_list(self, items: Any) -> Any:
            return self.represent_sequence("tag:yaml.org,2002:seq", items, flow_style=True)

        def represent_text(self, text: str) -> Any:
            odd = not text.isprintable()  # line ends that others read as one, say
            return self.represent_scalar("tag:yaml.org,2002:str", text, style='"' if odd else None)

    Dumper.add_representer(str, Dumper.represent_text)
    Dumper.add_representer(list, Dumper.represent_list)
    Dumper.add_representer(tuple, Dumper.represent_list)
    return str(
        yaml.dump(value, Dumper=Dumper, sort_keys=False, allow_unicode=True, default_flow_style=False, width=110)
    )
