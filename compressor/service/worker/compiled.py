"""Byte code of this program, written before a job needs it: a sandbox cannot keep any, and would make it each time."""

from __future__ import annotations

import compileall
import importlib.util
import os

_PACKAGES = ("compressor", "profilers", "exporters", "lut")


def compile_packages() -> None:
    """Compile what has no byte code yet. Where it cannot be written, jobs begin a little later."""
    for name in _PACKAGES:
        spec = importlib.util.find_spec(name)
        for place in spec.submodule_search_locations or () if spec is not None else ():
            if os.access(place, os.W_OK):
                compileall.compile_dir(place, quiet=2, workers=1)
