"""The decision, as a noun: what goes, what changes, and how that is applied to a fresh original."""

from typing import Any

__all__ = ["Architecture"]


def __getattr__(name: str) -> Any:
    if name == "Architecture":
        from compressor.architecture.architecture import Architecture

        return Architecture
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
