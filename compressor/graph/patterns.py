"""Patterns over module names, as the user writes them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from fnmatch import fnmatchcase

from torch import nn

from compressor.errors import UsageError
from compressor.plugins.registry import closest


def matches(name: str, patterns: Iterable[str]) -> bool:
    """Whether a module name, or the name of a module around it, matches one of the shell-style patterns.

    >>> matches("layer4.0.conv1", ["layer4*"]), matches("layer4.0.conv1", ["conv1"])
    (True, False)
    """
    parts = name.split(".")
    return any(fnmatchcase(".".join(parts[: i + 1]), pattern) for pattern in patterns for i in range(len(parts)))


def require_matches(model: nn.Module, **patterns: Sequence[str]) -> None:
    """Refuse patterns that name nothing: one mistyped would free, or hold, something else than was meant.

    Args:
        patterns: shell-style patterns under the name of the option they come from.

    Raises:
        UsageError: a pattern matches no module's name, nor that of a module around one.
    """
    names = [name for name, _ in model.named_modules() if name]
    for option, given in patterns.items():
        for pattern in given:
            if not any(matches(name, (pattern,)) for name in names):
                near = closest(pattern, names)
                hint = f"did you mean {', '.join(near)}?" if near else f"names are such as {', '.join(names[:3])}."
                raise UsageError(
                    f"No module of {type(model).__name__} matches the {option} pattern {pattern!r}; {hint}"
                )
