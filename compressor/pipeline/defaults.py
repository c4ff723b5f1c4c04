"""What a job does where nothing else is asked for."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

DEFAULT_EPOCHS = 5
"""Of a search that trains, and of fine-tuning after it; what trains no search gives fine-tuning both."""
DEFAULT_BATCH_SIZE = 64
DEFAULT_BENCH_SECONDS = 10.0


def default_search(data: str | None, search_epochs: object = None) -> str:
    """The search method of a job that names none: ``figs`` if it is given epochs, else ``oneshot``, as no search that
    trains was ahead of it at equal training (``benchmarks/accuracy/equal_training.md``)."""
    return "figs" if data and search_epochs else "oneshot"


def default_epochs(data: str | None, search_epochs: int | None, finetune_epochs: int | None) -> tuple[int, int]:
    """Epochs of search and fine-tuning of a job that names no search."""
    if not data:
        return search_epochs or 0, finetune_epochs or 0
    if search_epochs:
        return search_epochs, DEFAULT_EPOCHS if finetune_epochs is None else finetune_epochs
    return 0, 2 * DEFAULT_EPOCHS if finetune_epochs is None else finetune_epochs


def default_options(
    data: str | None, search_epochs: object, given: Mapping[str, Any] | None
) -> Mapping[str, Any] | None:
    """Options of the search of a job that names none, those given among them: ``figs`` leaves trainings out that are
    too short for it."""
    if default_search(data, search_epochs) != "figs" or not isinstance(given, Mapping | None):
        return given
    return {"least_steps": 400, **(given or {})}


def default_sweep_search(data: str | None, search_epochs: object = None) -> str:
    """That of a sweep that names none: with data ``supernet``, which trains once for all budgets."""
    return "supernet" if data else "oneshot"
