"""What a sweep is asked to do. Nothing here imports torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product
from typing import Any

from compressor.budget import Budget, normal_texts, parse_budget
from compressor.errors import UsageError
from compressor.jobs.config import JobConfig
from compressor.jobs.config import comparable as comparable_job
from compressor.options import Flag, Options, Whole, option, shown

WORKERS = Whole(1, 256)
Combination = tuple[Budget, ...]


@dataclass(frozen=True)
class SweepConfig(Options):
    """One sweep: every combination of method, seed, target and budgets is a point.

    Attributes:
        jobs: a job for each search method, which says all but budgets, seed, target and folder.
        budgets: at least one combination of budgets, all of the same costs.
        out: the folder to write; every point is a job in a folder below it.
        seeds, targets: one at least; a target is None without a latency budget.
        workers: points that run side by side, each in a process of its own; says nothing about the result.
        cold: begin every search at the original; else at the result for the next larger budgets, where that can be.
        force: whether to overwrite a folder that holds another sweep.
    """

    jobs: tuple[JobConfig, ...]
    budgets: tuple[Combination, ...]
    out: str
    seeds: tuple[int, ...] = (0,)
    targets: tuple[str | None, ...] = (None,)
    workers: int = option(1, WORKERS, "Points that run side by side.")
    cold: bool = option(False, Flag(), "Whether every search begins at the original.")
    force: bool = option(False, Flag(), "Whether to overwrite a folder that holds another sweep.")

    def __post_init__(self) -> None:
        super().__post_init__()
        for what, values in (("method", self.methods), ("seed", self.seeds), ("target", self.targets)):
            if twice := [value for value in values if list(values).count(value) > 1]:
                raise UsageError(f"The {what} {shown(twice[0])} is given twice; name each once.")
        if self.workers > 1 and any(job.bench_seconds for job in self.jobs):
            raise UsageError(
                "Points side by side would disturb each other's timing; leave --bench-seconds out, or run them one "
                "after the other (--workers 1)."
            )
        if self.workers > 1 and "latency" in self.costs:
            raise UsageError("A latency budget is held by timing networks, one at a time; leave --workers out.")

    @property
    def methods(self) -> tuple[str, ...]:
        """The search methods."""
        return tuple(job.search for job in self.jobs)

    @property
    def costs(self) -> tuple[str, ...]:
        """The costs that budgets are about."""
        return tuple(budget.cost for budget in self.budgets[0])

    def job(self, method: str, budgets: Combination, seed: int, target: str | None, **more: Any) -> JobConfig:
        """The job of one point."""
        template = next(job for job in self.jobs if job.search == method)
        return replace(template, budgets=budgets, seed=seed, target=target, force=self.force, **more)

    def identity(self) -> dict[str, Any]:
        """What decides the results, as JSON values: two runs with equal ones may share one folder."""
        said_apart = {"budgets", "seed", "target"}
        jobs = [{k: v for k, v in job.identity().items() if k not in said_apart} for job in self.jobs]
        return {
            "sweep": [{budget.cost: budget.normal for budget in combination} for combination in self.budgets],
            "methods": list(self.methods),
            "seeds": list(self.seeds),
            "targets": list(self.targets),
            "cold": self.cold,
            "jobs": jobs,
        }


def comparable(identity: Mapping[str, Any]) -> dict[str, Any]:
    """What an earlier version of the program wrote of ``SweepConfig.identity``, in today's form."""
    sweep = [normal_texts(each) for each in identity.get("sweep", ())]
    return {**identity, "sweep": sweep, "jobs": [comparable_job(each) for each in identity.get("jobs", ())]}


def combinations(budgets: Mapping[str, Sequence[str]], *, paired: bool = False) -> tuple[Combination, ...]:
    """Combinations of budgets, given by cost.

    Args:
        paired: the first of each cost together, the second of each, and so on; else the grid of all.

    Raises:
        UsageError: no budgets, budgets that cannot be read, one twice, or numbers of them that differ where they are
            to be paired.

    >>> both = {"flops": ["25%", "50%"], "params": ["1M", "2M"]}
    >>> [[budget.text for budget in each] for each in combinations(both)]
    [['25%', '1M'], ['25%', '2M'], ['50%', '1M'], ['50%', '2M']]
    >>> [[budget.text for budget in each] for each in combinations(both, paired=True)]
    [['25%', '1M'], ['50%', '2M']]
    """
    if not budgets:
        raise UsageError("No budgets were given; pass some, for example --budgets flops=25%,50%,75%.")
    axes: list[list[Budget]] = []
    for cost, texts in budgets.items():
        axis = [parse_budget(cost, text) for text in texts]
        if not axis:
            raise UsageError(f"There is no budget of {cost}; write them as {cost}=25%,50%.")
        again = next((b.text for i, b in enumerate(axis) if b in axis[:i]), None)
        if again is not None and not paired:
            raise UsageError(f"The {cost} budget {again} is given twice; name each once.")
        axes.append(axis)
    if not paired:
        return tuple(product(*axes))
    if len({len(axis) for axis in axes}) > 1:
        counts = ", ".join(f"{len(axis)} of {axis[0].cost}" for axis in axes)
        raise UsageError(f"Budgets that are paired must be as many for each cost, not {counts}; or leave --zip out.")
    found = tuple(zip(*axes, strict=True))
    if twice := next((each for i, each in enumerate(found) if each in found[:i]), None):
        raise UsageError(f"Two pairs of budgets are alike ({', '.join(map(str, twice))}); name each once.")
    return found


def read_budgets(texts: Sequence[str]) -> dict[str, list[str]]:
    """``flops=25%,50%`` as budgets by cost. Raises ``UsageError`` for what has not that form, or a cost twice."""
    found: dict[str, list[str]] = {}
    for text in texts:
        cost, equals, values = text.partition("=")
        cost = cost.strip()
        if not equals or not cost:
            raise UsageError(f"--budgets takes a cost and budgets, such as flops=25%,50%,75%, not {shown(text)}.")
        if cost in found:
            raise UsageError(f"Budgets of {cost} are given twice; write them as one list: {cost}=25%,50%.")
        found[cost] = [value.strip() for value in values.split(",")]
    return found
