"""Pieces of HTML. Text goes through :func:`text`, so nothing a model or a user named can become markup."""

from __future__ import annotations

import html
from collections.abc import Iterable, Sequence


class Markup(str):
    """A string that is HTML already."""

    __slots__ = ()


def text(value: object) -> Markup:
    """Any value as HTML: markup as it is, all else escaped."""
    return value if isinstance(value, Markup) else Markup(html.escape(str(value), quote=True))


def join(parts: Iterable[object]) -> Markup:
    """Parts one after the other."""
    return Markup("".join(text(part) for part in parts))


def tag(name: str, *content: object, **attributes: object) -> Markup:
    """An element; ``class_`` gives ``class``, other underscores become hyphens, ``None`` leaves an attribute out."""
    given = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{text(value)}"'
        for key, value in attributes.items()
        if value is not None
    )
    return Markup(f"<{name}{given}>{join(content)}</{name}>")


def table(head: Sequence[str], rows: Iterable[Sequence[object]], *, kinds: str, dense: bool = False) -> Markup:
    """A table. ``kinds`` has one letter per column: "t" text, "n" number, "w" a wide one for a bar."""
    classes = [kind if kind != "t" else None for kind in kinds]
    header = join(tag("th", name, class_=kind, scope="col") for name, kind in zip(head, classes, strict=True))
    body = join(
        tag("tr", join(tag("td", cell, class_=kind) for cell, kind in zip(row, classes, strict=True))) for row in rows
    )
    inner = tag("table", tag("thead", tag("tr", header)), tag("tbody", body), class_="dense" if dense else None)
    return tag("div", inner, class_="wrap")


def section(title: str, *content: object, lead: str | None = None) -> Markup:
    """A titled part of the page, with an optional sentence that says how to read it."""
    return tag("section", tag("h2", title), tag("p", lead, class_="lead") if lead else "", join(content))


def legend(entries: Iterable[tuple[str, str]], *, dashed: Iterable[tuple[str, str]] = ()) -> Markup:
    """Colour keys: (colour variable, name). Classes and no inline styles, which strict pages refuse."""
    solid = [tag("span", tag("i", class_=f"key-{colour}"), name) for colour, name in entries]
    lines = [tag("span", tag("i", class_=f"dash key-{colour}"), name) for colour, name in dashed]
    return tag("div", join([*solid, *lines]), class_="legend")
