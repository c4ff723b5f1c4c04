"""Recipes from Python."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

from compressor.errors import UsageError
from compressor.jobs.asked import Asked
from compressor.jobs.recipes.read import read_recipe, recipe_of
from compressor.jobs.recipes.write import recipe_values
from compressor.jobs.run import run_job
from compressor.options import Flag, Place, read, shown
from compressor.pipeline.console import Console
from compressor.pipeline.events import Events, Listener
from compressor.report import Report


def load_recipe(path: str | os.PathLike[str]) -> dict[str, Any]:
    """A recipe with everything that it amounts to, to be changed and passed to ``compressor.run``.

    Args:
        path: a file, YAML or JSON, or a folder that ``compress`` wrote.

    Raises:
        UsageError: it cannot be read, or something in it is not what its key takes.
    """
    return recipe_values(read_recipe(path).job())


def run(
    recipe: str | os.PathLike[str] | Mapping[str, Any],
    *,
    out: str | os.PathLike[str] | None = None,
    verbose: bool = False,
    listeners: Sequence[Listener] = (),
) -> Report:
    """Run a recipe, as ``compress --config`` does. A run that was cut off goes on where it was.

    Args:
        recipe: a file, a folder that ``compress`` wrote, or what ``load_recipe`` gives: a mapping such as
            ``{"model": "resnet18", "budgets": {"flops": "50%"}}``.
        out: the folder to write; else that of the recipe, or one below ``compressed``. ``compressor.load`` gives the
            network in it.
        verbose: progress on stderr.
        listeners: functions that are told what happens, see ``compressor.pipeline.events``.

    Raises:
        UsageError: the recipe cannot be used. Others are those of ``compressor.compress``.
    """
    if isinstance(recipe, Mapping):
        asked = recipe_of(recipe)
    elif isinstance(recipe, (str, os.PathLike)):
        asked = read_recipe(recipe)
    else:
        raise UsageError(f"recipe must be a file, a folder or a mapping, not {shown(recipe)}.")
    read("verbose", Flag(), verbose)
    told = {} if out is None else {"out": os.fspath(read("out", Place(), out))}
    config = Asked(told).over(asked).job()
    return run_job(config, events=Events(Console(quiet=not verbose), *listeners))
