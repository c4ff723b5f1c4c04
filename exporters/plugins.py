"""Names to ``"module:attr"`` strings, imported on first use; other distributions add theirs through entry points."""

from __future__ import annotations

import difflib
import importlib
from collections.abc import Mapping
from importlib.metadata import entry_points
from typing import Any


class PluginTable:
    """A table of plug-ins of one kind.

    Args:
        kind: what an entry is, in the singular, for error messages ("export format").
        entries: built-in names and their targets.
        group: entry-point group; a name that is taken already raises instead of replacing silently.
        error: the exception class to raise for a name that is unknown or taken.
    """

    def __init__(self, kind: str, entries: Mapping[str, str], group: str, error: type[Exception]) -> None:
        self.kind = kind
        self._entries = dict(entries)
        self._group = group
        self._error = error
        self._discovered = False

    def targets(self) -> dict[str, str]:
        """Every name with the ``"module:attr"`` that implements it."""
        if not self._discovered:
            for point in entry_points(group=self._group):
                if point.name in self._entries:
                    raise self._error(
                        f"The {self.kind} {point.name!r} of {point.value!r} is taken by "
                        f"{self._entries[point.name]!r}; rename one of them."
                    )
                self._entries[point.name] = point.value
            self._discovered = True
        return self._entries

    def names(self) -> list[str]:
        """All names, sorted."""
        return sorted(self.targets())

    def create(self, name: str) -> Any:
        """Import the entry called ``name`` and call it without arguments."""
        known = self.targets()
        if name not in known:
            near = difflib.get_close_matches(name, known, n=3, cutoff=0.4)
            hint = f" Did you mean {', '.join(near)}?" if near else ""
            raise self._error(f"Unknown {self.kind} {name!r}.{hint} Choose from: {', '.join(sorted(known))}.")
        module, _, attribute = known[name].partition(":")
        return getattr(importlib.import_module(module), attribute)()
