"""What a job does where nothing else is asked for."""

from __future__ import annotations

DEFAULT_EPOCHS = 5
DEFAULT_BENCH_SECONDS = 10.0


def default_search(data: str | None) -> str:
    """The search method of a job that names none: ``figs`` learns from data, ``oneshot`` needs none."""
    return "figs" if data else "oneshot"


def default_options(data: str | None) -> dict[str, int]:
    """Options of the search of a job that names none: trainings too short for it to earn its steps leave it out
    (``benchmarks/accuracy/equal_training.md``)."""
    return {"least_steps": 400} if data else {}


def default_sweep_search(data: str | None) -> str:
    """That of a sweep that names none: with data ``supernet``, which trains once for all budgets."""
    return "supernet" if data else "oneshot"
