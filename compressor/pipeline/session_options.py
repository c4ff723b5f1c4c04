"""What ``prepare`` takes, checked before any work."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from compressor.errors import UsageError
from compressor.options import shown


def in_full(options: Mapping[str, Any] | None) -> dict[str, Any]:
    """The method's options for a loop that computes the whole network. Raises ``UsageError`` for what it cannot do."""
    if options is not None and not isinstance(options, Mapping):
        raise UsageError(f"options must be a mapping of names to values, not {shown(options)}.")
    options = options or {}
    for name, why in (
        ("grow", "budgets would be shares of the larger network"),
        ("compiler", "compile your own model instead"),
        ("live", "the optimizer of your loop holds the full weights"),
    ):
        if name in options:
            raise UsageError(f"{name} is for compressor.compress, not for a loop of your own: {why}.")
    return {**options, "live": False}
