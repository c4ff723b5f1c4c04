"""What stands for a file in a recipe of a service, ``upload:ID``, ``job:ID`` or a data set's name, and the files."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

UPLOAD, JOB = "upload:", "job:"
REFERRING = ("weights", "data", "start")
"""Keys whose value may stand for a file."""
_ID = re.compile(r"[0-9a-z]{1,40}")


def reference(value: Any, prefix: str) -> str | None:
    """The id behind ``prefix``; None if ``value`` is nothing of the kind."""
    if not isinstance(value, str) or not value.startswith(prefix):
        return None
    found = value.removeprefix(prefix)
    return found if _ID.fullmatch(found) else None


def replaced(recipe: Mapping[str, Any], places: Mapping[str, str]) -> dict[str, Any]:
    """A recipe with what stands for files replaced.

    Args:
        places: by what is written, ``{"upload:01ab": "npz:/work/data.npz", "cifar": "cifar10:/data/cifar10"}``.
    """
    return {
        name: places.get(value, value) if name in REFERRING and isinstance(value, str) else value
        for name, value in recipe.items()
    }
