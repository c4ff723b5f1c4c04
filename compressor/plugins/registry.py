"""One small registry for every kind of plug-in: names to ``"module:attr"`` strings, resolved on first use."""

from __future__ import annotations

import difflib
import importlib
from collections.abc import Iterator
from importlib.metadata import entry_points
from typing import Any

from compressor.errors import UsageError


def closest(name: str, choices: list[str], n: int = 3) -> list[str]:
    """The choices that look most like ``name``, best first."""
    return difflib.get_close_matches(name, choices, n=n, cutoff=0.4)


def unknown_name(kind: str, name: str, choices: list[str], *, listing: str | None = None) -> UsageError:
    """An error for a name that is not registered, with the closest names and the way to see them all."""
    near = closest(name, choices)
    hint = f" Did you mean {', '.join(near)}?" if near else ""
    every = listing or f"Choose from: {', '.join(sorted(choices))}."
    return UsageError(f"Unknown {kind} {name!r}.{hint} {every}")


class Registry:
    """Maps names to lazily imported objects.

    Args:
        kind: what an entry is, in the singular, for error messages ("search method").
        entries: built-in names with their ``"module:attr"`` targets.
        group: entry-point group through which other distributions add entries; a name that is already
            taken raises instead of replacing silently.
    """

    def __init__(self, kind: str, entries: dict[str, str], group: str | None = None) -> None:
        self.kind = kind
        self._targets: dict[str, str] = {}
        self._group = group
        self._discovered = group is None
        for name, target in entries.items():
            self.register(name, target)

    def register(self, name: str, target: str) -> None:
        """Add an entry. Raises ``UsageError`` for a duplicate name or a target that is not ``"module:attr"``."""
        if name in self._targets:
            raise UsageError(f"The {self.kind} {name!r} is registered already, as {self._targets[name]!r}.")
        module, _, attr = target.partition(":")
        if not module or not attr:
            raise UsageError(f"The {self.kind} {name!r} needs a target of the form 'module:attr', not {target!r}.")
        self._targets[name] = target

    def names(self) -> list[str]:
        """All registered names, sorted."""
        self._discover()
        return sorted(self._targets)

    def __contains__(self, name: str) -> bool:
        self._discover()
        return name in self._targets

    def __iter__(self) -> Iterator[str]:
        return iter(self.names())

    def get(self, name: str) -> Any:
        """Import and return the entry. Raises ``UsageError`` with the closest names if there is none."""
        self._discover()
        if name not in self._targets:
            raise unknown_name(self.kind, name, self.names())
        module, _, attr = self._targets[name].partition(":")
        return getattr(importlib.import_module(module), attr)

    def _discover(self) -> None:
        if self._discovered:
            return
        self._discovered = True
        for point in entry_points(group=self._group or ""):
            self.register(point.name, point.value)
