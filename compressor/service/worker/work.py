"""What a child does: the job of a recipe, by the same code as the command line, in the folder ``result``.

Importing this imports what jobs need, so that a child can do so before there is a job for it.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from compressor.budget import parse_budgets
from compressor.errors import UsageError
from compressor.jobs.asked import Asked, known_formats
from compressor.jobs.executors.base import Executor
from compressor.jobs.executors.processes import ProcessExecutor
from compressor.jobs.pick import PickConfig, pick
from compressor.jobs.recipes.read import recipe_of
from compressor.jobs.run import run_job
from compressor.jobs.sweeps.asked import sweep_of
from compressor.jobs.sweeps.run import run_sweep
from compressor.options import shown
from compressor.pipeline.events import Events
from compressor.service.worker.followed import FollowedExecutor
from compressor.service.worker.told import Tell, Told, ToldExecutor

RESULT, PARENT = "result", "parent"


def run(job: Mapping[str, Any], tell: Tell) -> None:
    """Do a job.

    Args:
        job: ``{"kind": "compress" | "sweep" | "pick", "recipe": {...}}``; the recipe has places in this folder.

    Raises:
        UsageError: it cannot be used. Others are those of ``run_job``, ``run_sweep`` and ``pick``.
    """
    warnings.simplefilter("ignore")
    events = Events(Told(tell))
    kind, recipe = job["kind"], job["recipe"]
    with _devices(recipe) as own:
        if kind == "compress":
            run_job(Asked({"out": RESULT, **own}).over(recipe_of(recipe)).job(), events=events)
        elif kind == "sweep":
            sweep = sweep_of(Asked({"out": RESULT, **own}).over(recipe_of(recipe, sweep=True)))
            workers = sweep.workers

            def make(_: Path) -> Executor:
                return FollowedExecutor(ProcessExecutor(workers), tell) if workers > 1 else ToldExecutor(tell)

            run_sweep(sweep, events=events, quiet=True, make=make)
        elif kind == "pick":
            pick(_picked(recipe, own), events=events)
        else:
            raise UsageError(f"There is no kind of job {shown(kind)}; known are compress, sweep and pick.")


def _picked(recipe: Mapping[str, Any], own: Mapping[str, Any]) -> PickConfig:
    """What to pick from the folder of the parent."""
    export = tuple(recipe.get("export", ("onnx",)))
    known_formats(export)
    budgets = parse_budgets({cost: str(text) for cost, text in recipe["budgets"].items()})
    return PickConfig(PARENT, budgets, RESULT, export=export, target=recipe.get("target"), lut=own.get("lut"))


@contextmanager
def _devices(recipe: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Inside, targets on other machines can be measured; gives the settings that lead there."""
    targets = [each for each in (recipe.get("target"), *recipe.get("targets", ())) if isinstance(each, str)]
    if not Path(".device/socket").exists() or not targets:
        yield {}
        return
    from compressor.service.devices.remote import attached

    with attached(Path(), targets) as lut:
        yield {"lut": str(lut)} if lut.exists() else {}  # runtimes of this machine have the table of its own cache
