"""What a job does where nothing else is asked for."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

DEFAULT_EPOCHS = 5
DEFAULT_BATCH_SIZE = 64
DEFAULT_BENCH_SECONDS = 10.0


def default_search(data: str | None) -> str:
    """The search method of a job that names none: ``figs`` learns from data, ``oneshot`` needs none."""
    return "figs" if data else "oneshot"


def default_options(data: str | None, given: Mapping[str, Any] | None) -> Mapping[str, Any] | None:
    """Options of the search of a job that names none, those given among them: trainings too short for it to earn its
    steps leave it out (``benchmarks/accuracy/equal_training.md``)."""
    if not data or not isinstance(given, Mapping | None):
        return given
    return {"least_steps": 400, **(given or {})}


def default_sweep_search(data: str | None) -> str:
    """That of a sweep that names none: with data ``supernet``, which trains once for all budgets."""
    return "supernet" if data else "oneshot"
