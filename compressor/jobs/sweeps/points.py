"""The jobs of a sweep: which there are, what they are called, and which of them wait for which."""

from __future__ import annotations

from collections.abc import Container, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from compressor.jobs.config import JobConfig
from compressor.jobs.sweeps.config import SweepConfig
from compressor.pipeline.many import down_to, goes_on, has_points, highest, lowest, name_of, slug
from compressor.pipeline.reach import Limits, nearest_above, size


@dataclass(frozen=True)
class Planned:
    """A job of a sweep.

    Attributes:
        name: of the point, and of its folder.
        config: the whole job.
        start: the point that it begins at, or the search that it takes a network from; None for the original.
        trained: the point whose training of the original it takes over, if there is one.
        searches: whether it is a search for all budgets, and no point itself.
    """

    name: str
    config: JobConfig
    start: str | None = None
    trained: str | None = None
    searches: bool = False

    def is_ready(self, done: Container[str], ended: Container[str]) -> bool:
        """Whether it can begin, given the jobs that are done and those that ended, done or failed: one that failed may
        have trained the original first, and if not, this one does."""
        return (self.start is None or self.start in done) and (self.trained is None or self.trained in ended)

    @property
    def notes(self) -> dict[str, Any]:
        """What is said of the point beside its costs and score."""
        config = self.config
        return {
            "method": config.search,
            "seed": config.seed,
            "target": config.target,
            "budgets": {budget.cost: budget.text for budget in config.budgets},
            "start": self.start,
            "folder": self.name,
        }


def plan(sweep: SweepConfig, limits: Sequence[Limits]) -> list[Planned]:
    """All jobs, those that others wait for before these.

    Args:
        limits: of each combination of budgets, in the order of ``sweep.budgets``.
    """
    found: list[Planned] = []
    first_trained: dict[int, str] = {}
    for job in sweep.jobs:
        for target in sweep.targets:
            for seed in sweep.seeds:
                found += _of_one(sweep, job, seed, target, limits, first_trained)
    return found


def _of_one(
    sweep: SweepConfig,
    job: JobConfig,
    seed: int,
    target: str | None,
    limits: Sequence[Limits],
    first_trained: dict[int, str],
) -> list[Planned]:
    """The jobs of one method, seed and target."""
    method, out = job.search, Path(sweep.out)
    ends = [slug(target)] if target is not None and len(sweep.targets) > 1 else []
    ends += [f"seed{seed}"] if len(sweep.seeds) > 1 else []
    front = [slug(method)] if len(sweep.jobs) > 1 else []
    found: list[Planned] = []
    search = None
    if has_points(method):
        name = "-".join([slug(method), *ends])
        config = sweep.job(method, highest(sweep.budgets, limits), seed, target, out=str(out / name))
        options = down_to(method, config.options, config.budgets, lowest(sweep.budgets, limits))
        config = replace(config, options=options, finetune_epochs=0, tune="auto")
        search = Planned(name, config, trained=first_trained.get(seed), searches=True)
        first_trained.setdefault(seed, name)
        found.append(search)
    done: dict[int, str] = {}
    trains = job.train_epochs > 0
    for index in sorted(range(len(limits)), key=lambda i: -size(limits[i])):
        budgets = sweep.budgets[index]
        name = "-".join([*front, name_of(budgets), *ends])
        config = sweep.job(method, budgets, seed, target, out=str(out / name))
        if search is not None:
            start: str | None = search.name
            config = replace(config, options=dict(search.config.options), train_epochs=0)
        else:
            nearest = (
                None
                if sweep.cold or not goes_on(config.search, config.options)
                else nearest_above(index, list(done), limits)
            )
            start = None if nearest is None else done[nearest]
        if start is not None:
            config = replace(config, start=str(out / start))
        elder = first_trained.get(seed) if trains and search is None else None
        found.append(Planned(name, config, start, None if elder == name else elder))
        if trains and search is None:
            first_trained.setdefault(seed, name)
        done[index] = name
    return found
