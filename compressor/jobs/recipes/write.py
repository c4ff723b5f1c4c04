"""Write a recipe: all that a job is told, so that running it gives the same result, with other defaults, too.

Nothing here imports torch.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from compressor.errors import UsageError
from compressor.jobs.asked import methods_in
from compressor.jobs.config import OF_THE_JOB, JobConfig
from compressor.jobs.recipes.keys import SCHEMA_VERSION, job_keys, method_keys, plain
from compressor.jobs.recipes.read import read_recipe
from compressor.search import get_method
from compressor.storage.files import atomic_write_text
from compressor.storage.places import RECIPE
from compressor.storage.version import VERSION
from compressor.storage.yaml_text import dump_yaml

_ELSEWHERE = ("out", "force")
"""What says where a job goes, not what it is."""


def recipe_values(config: JobConfig) -> dict[str, Any]:
    """A job as a recipe, in JSON values: every setting that has a value, and every option of its search."""
    found: dict[str, Any] = {"schema_version": SCHEMA_VERSION, "model": config.model}
    found["budgets"] = {budget.cost: budget.text for budget in config.budgets}
    for name in job_keys():
        value = getattr(config, name)
        if value is not None and name not in (*found, *_ELSEWHERE):
            found[name] = plain(value)
    chosen = methods_in(config.search)
    for method in chosen:
        given = config.options.get(method, {}) if len(chosen) > 1 else config.options
        found[method] = _options(method, given, config.optimizer)
    return found


def _options(method: str, given: Mapping[str, Any], optimizer: str) -> dict[str, Any]:
    """All options of a method that have a value; those that the job says are not said again."""
    declared = get_method(method)
    read = declared.read(given)
    values = {name: getattr(read, name) for name in method_keys(declared) if name not in OF_THE_JOB or name in given}
    if "lr" in values and values["lr"] is None:
        values["lr"] = declared.config.rates.get(optimizer)
    return {name: plain(value) for name, value in values.items() if value is not None}


def recipe_text(config: JobConfig) -> str:
    """A job as a recipe in YAML."""
    about = f"# A recipe of compressor {VERSION}. To run it: compress --config {RECIPE} --out FOLDER\n"
    return about + dump_yaml(recipe_values(config))


def write_recipe(path: Path, config: JobConfig) -> None:
    """Write a job's recipe, unless what lies there says the same. Raises ``CompressorError``."""
    if not _says(path, config):
        atomic_write_text(path, recipe_text(config))


def _says(path: Path, config: JobConfig) -> bool:
    """Whether a recipe is that of a job; whoever wrote it may have added notes."""
    try:
        return path.is_file() and recipe_values(read_recipe(path).job()) == recipe_values(config)
    except UsageError:
        return False
