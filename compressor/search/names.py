"""Which search methods a job names: one, or several that follow each other, as in ``dash,figs``."""

from __future__ import annotations

from compressor.errors import UsageError
from compressor.options import Text, read
from compressor.search import get_method


def names_of(search: str) -> list[str]:
    """The methods, in order.

    Raises:
        UsageError: an unknown method, one twice, or one before the last that only makes networks smaller: budgets are
            for the last to meet, so those before it would have nothing to do.
    """
    names = [name.strip() for name in read("search", Text(), search).split(",")]
    methods = [get_method(name) for name in names]
    if len(set(names)) < len(names):
        raise UsageError(f"--search {search} names a method twice; name each once.")
    for method in methods[:-1]:
        if not method.improves:
            raise UsageError(
                f"--search {search}: {method.name} only makes networks smaller, and what comes before the last search "
                f"must look for better ones; put {method.name} last."
            )
    return names
