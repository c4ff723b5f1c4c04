"""Entry points of other distributions.

``importlib.metadata`` takes longer to import than all of the command line, and few installations have a plug-in. So the
folders on ``sys.path`` are looked through for one first.
"""

from __future__ import annotations

import os
import sys
from functools import cache

_MARK = b"[compressor."
_MOST = 1 << 20  # bytes of an entry_points.txt


def entry_points_of(group: str) -> list[tuple[str, str]]:
    """Names and values of the entry points of a group that begins with ``compressor.``."""
    if not _are_any(tuple(sys.path)):
        return []
    from importlib.metadata import entry_points

    return [(point.name, point.value) for point in entry_points(group=group)]


@cache
def _are_any(path: tuple[str, ...]) -> bool:
    for folder in path:
        try:
            with os.scandir(folder or ".") as entries:
                named = [e.path for e in entries if e.name.endswith((".dist-info", ".egg-info"))]
        except NotADirectoryError:
            return True  # an archive: only importlib can tell
        except OSError:
            continue
        for place in named:
            try:
                with open(os.path.join(place, "entry_points.txt"), "rb") as file:
                    if _MARK in file.read(_MOST):
                        return True
            except OSError:
                continue
    return False
