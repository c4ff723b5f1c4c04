"""One small registry for every kind of plug-in: names to ``"module:attr"`` strings, resolved on first use."""

from __future__ import annotations

import importlib
from collections.abc import Iterator, Mapping
from typing import Any

from compressor.errors import UsageError
from compressor.plugins.installed import entry_points_of


def closest(name: str, choices: list[str], n: int = 3) -> list[str]:
    """The choices that look most like ``name``, best first."""
    import difflib

    return difflib.get_close_matches(name, choices, n=n, cutoff=0.4)


def unknown_text(kind: str, name: str, choices: list[str], *, listing: str | None = None) -> str:
    """What to say of a name that is not registered: the closest names, and the way to see them all."""
    near = closest(name, choices)
    hint = f" Did you mean {', '.join(near)}?" if near else ""
    every = listing or f"Choose from: {', '.join(sorted(choices))}."
    return f"Unknown {kind} {name!r}.{hint} {every}"


def unknown_name(kind: str, name: str, choices: list[str], *, listing: str | None = None) -> UsageError:
    """The same as an error."""
    return UsageError(unknown_text(kind, name, choices, listing=listing))


class Registry:
    """Maps names to lazily imported objects.

    Args:
        kind: what an entry is, in the singular, for error messages ("search method").
        entries: built-in names with their ``"module:attr"`` targets.
        group: entry-point group through which other distributions add entries; a name that is already taken raises
            instead of replacing silently.
        error: the class of what is raised.
    """

    def __init__(
        self,
        kind: str,
        entries: Mapping[str, str],
        group: str | None = None,
        error: type[Exception] = UsageError,
    ) -> None:
        self.kind = kind
        self._error = error
        self._targets: dict[str, str] = {}
        self._group = group
        self._own = set(entries)
        for name, target in entries.items():
            self.register(name, target)

    def register(self, name: str, target: str) -> None:
        """Add an entry. Raises for a name that is taken, or a target that is not ``"module:attr"``."""
        _add(self._targets, name, target, self.kind, self._error)

    def names(self) -> list[str]:
        """All registered names, sorted."""
        return sorted(self._known())

    def targets(self) -> dict[str, str]:
        """Every name with the ``"module:attr"`` that implements it."""
        return dict(self._known())

    def __contains__(self, name: object) -> bool:
        return name in self._known()

    def __iter__(self) -> Iterator[str]:
        return iter(self.names())

    def get(self, name: str) -> Any:
        """Import and return the entry. Raises with the closest names if there is none."""
        known = self._known()
        if name not in known:
            raise self._error(unknown_text(self.kind, name, sorted(known)))
        if name not in self._own:
            return self._foreign(name, known[name])
        return _load(known[name])

    def _foreign(self, name: str, target: str) -> Any:
        """An entry of another distribution: whatever it raises when it is imported is said with its name."""
        try:
            return _load(target)
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # one that ends the process, too
            raise self._error(
                f"The {self.kind} {name!r} cannot be loaded from {target!r} ({type(error).__name__}: {error}); update "
                "or remove the package that it comes from."
            ) from error

    def _known(self) -> dict[str, str]:
        if self._group is not None:
            found = dict(self._targets)
            for name, target in entry_points_of(self._group):
                _add(found, name, target, self.kind, self._error)
            self._targets, self._group = found, None  # only once all of them fit
        return self._targets


def _load(target: str) -> Any:
    module, _, attribute = target.partition(":")
    found: Any = importlib.import_module(module)
    for part in attribute.split("."):
        found = getattr(found, part)
    return found


def _add(targets: dict[str, str], name: str, target: str, kind: str, error: type[Exception]) -> None:
    if name in targets:
        raise error(f"The {kind} {name!r} of {target!r} is taken by {targets[name]!r}; rename or remove one of them.")
    module, _, attribute = target.partition(":")
    if not module or not attribute:
        raise error(f"The {kind} {name!r} needs a target of the form 'module:attr', not {target!r}.")
    targets[name] = target
