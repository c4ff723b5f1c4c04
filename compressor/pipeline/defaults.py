"""What a job does where nothing else is asked for."""

from __future__ import annotations

DEFAULT_EPOCHS = 5
DEFAULT_BENCH_SECONDS = 10.0


def default_search(data: str | None) -> str:
    """The search method of a job that names none: ``figs`` learns from data, ``oneshot`` needs none."""
    return "figs" if data else "oneshot"
