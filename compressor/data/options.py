"""Settings behind the name of a data set: ``listops:n=2000,length=512``, ``fsdd:DIR,speaker=NAME``."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from compressor.errors import UsageError


def split_options(name: str, argument: str, known: Mapping[str, Callable[[str], Any]]) -> tuple[str, dict[str, Any]]:
    """The place (what comes before the options; empty if there is none) and the options' values.

    Only the last parts that look like ``word=value`` are options, so that places may have commas in them.

    Raises:
        UsageError: an option that the data set does not have, or given twice, or a value that cannot be read.
    """
    parts = argument.split(",")
    options: dict[str, Any] = {}
    while parts and "=" in parts[-1] and parts[-1].partition("=")[0].strip().isidentifier():
        key, _, text = (piece.strip() for piece in parts.pop().partition("="))
        if key not in known:
            raise UsageError(f"The data set {name} has no option {key!r}; it has {', '.join(known)}.")
        if key in options:
            raise UsageError(f"The option {key} of the data set {name} is given twice.")
        try:
            options[key] = known[key](text)
        except ValueError as error:
            raise UsageError(f"The option {key} of the data set {name} cannot be {text!r}: {error}.") from error
    return ",".join(parts), options


def whole(least: int) -> Callable[[str], int]:
    """A reader of whole numbers from ``least`` on."""

    def read(text: str) -> int:
        if not text.isdecimal() or int(text) < least:
            raise ValueError(f"expected a whole number of at least {least}")
        return int(text)

    return read
