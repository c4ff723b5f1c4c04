"""The jobs of a sweep: which there are, what they are called, and which of them wait for which."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from compressor.budget import Budget
from compressor.jobs.config import JobConfig
from compressor.jobs.sweeps.config import Combination, SweepConfig
from compressor.search import get_method
from compressor.search.names import names_of

Limits = Mapping[str, float]
"""By cost the most that is asked for, in the cost's base unit."""


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

    @property
    def needs(self) -> set[str]:
        """What has to be done before it."""
        return {name for name in (self.start, self.trained) if name is not None}

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
    ends = [_slug(target)] if target is not None and len(sweep.targets) > 1 else []
    ends += [f"seed{seed}"] if len(sweep.seeds) > 1 else []
    front = [_slug(method)] if len(sweep.jobs) > 1 else []
    found: list[Planned] = []
    search = None
    if has_points(method):
        name = "-".join([_slug(method), *ends])
        config = sweep.job(method, _highest(sweep.budgets, limits), seed, target, out=str(out / name))
        config = replace(
            config, options=_down_to(config, _lowest(sweep.budgets, limits)), finetune_epochs=0, tune="auto"
        )
        search = Planned(name, config, trained=first_trained.get(seed), searches=True)
        first_trained.setdefault(seed, name)
        found.append(search)
    done: list[int] = []
    trains = job.train_epochs > 0
    for index in sorted(range(len(limits)), key=lambda i: -_size(limits[i])):
        budgets = sweep.budgets[index]
        name = "-".join([*front, *(f"{b.cost}-{_slug(b.text.replace('%', 'pct'))}" for b in budgets), *ends])
        config = sweep.job(method, budgets, seed, target, out=str(out / name))
        if search is not None:
            start: str | None = search.name
            config = replace(config, options=dict(search.config.options), train_epochs=0)
        else:
            start = None if sweep.cold or not goes_on(config) else _nearest(index, done, limits, found)
        if start is not None:
            config = replace(config, start=str(out / start))
        elder = first_trained.get(seed) if trains and search is None else None
        found.append(Planned(name, config, start, None if elder == name else elder))
        if trains and search is None:
            first_trained.setdefault(seed, name)
        done.append(index)
    return found


def has_points(search: str) -> bool:
    """Whether one search finds networks for many budgets."""
    names = names_of(search)
    return len(names) == 1 and get_method(names[0]).points


def goes_on(config: JobConfig) -> bool:
    """Whether the search may begin at what it found for larger budgets: a method that cuts or trains and cuts, in the
    network's own size. What only chooses where to pool begins at the original."""
    names = names_of(config.search)
    if len(names) > 1:
        return False
    method = get_method(names[0])
    told = method.read(config.options)
    return not method.points and told.growth == 1 and "pooling" not in told.decides


def _nearest(index: int, done: Sequence[int], limits: Sequence[Limits], found: Sequence[Planned]) -> str | None:
    """The point with the least budgets of those that are nowhere below these."""
    mine = limits[index]
    larger = [i for i in done if all(limits[i][cost] >= mine[cost] for cost in mine)]
    if not larger:
        return None
    nearest = min(larger, key=lambda i: _size(limits[i]))
    points = [point for point in found if not point.searches]
    return points[done.index(nearest)].name


def _size(limits: Limits) -> float:
    return sum(math.log(value) for value in limits.values())


def _highest(budgets: Sequence[Combination], limits: Sequence[Limits]) -> Combination:
    return _end(budgets, limits, max)


def _lowest(budgets: Sequence[Combination], limits: Sequence[Limits]) -> Combination:
    return _end(budgets, limits, min)


def _end(budgets: Sequence[Combination], limits: Sequence[Limits], end: Any) -> Combination:
    """Of each cost the highest or the lowest budget."""

    def of(cost: int) -> Budget:
        index: int = end(range(len(budgets)), key=lambda i: limits[i][budgets[i][cost].cost])
        return budgets[index][cost]

    return tuple(of(cost) for cost in range(len(budgets[0])))


def _down_to(config: JobConfig, lowest: Combination) -> dict[str, Any]:
    """The options of a search for many budgets: it is told the lowest, if it has an option for them."""
    known = get_method(config.search).config.__dataclass_fields__
    options = dict(config.options)
    if "lowest" in known and lowest != config.budgets:
        options.setdefault("lowest", ",".join(f"{budget.cost}={budget.text}" for budget in lowest))
    return options


def _slug(text: str) -> str:
    return re.sub(r"[^\w.+-]+", "-", text).strip("-")
