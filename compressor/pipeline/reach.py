"""Whether a traced model can be brought to each of several budgets, before anything is trained."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace

from compressor.budget import Budget
from compressor.errors import UnreachableBudgetError, UsageError
from compressor.pipeline.problem import Problem
from compressor.pipeline.settings import Settings
from compressor.search.constraints.constraint import readable

Combination = tuple[Budget, ...]
Limits = Mapping[str, float]
"""By cost the most that is asked for, in the cost's base unit."""


def require_reachable(
    problem: Problem, settings: Settings, combinations: Sequence[Combination]
) -> list[dict[str, float]]:
    """By cost the limit of each combination of budgets. ``problem`` is traced, and measured if it has to be.

    Raises:
        UnreachableBudgetError: one is below what the method can bring the model to; names the smallest and the largest.
        UsageError: one is above what the model costs already.
    """
    originals = {name: term.original for name, term in problem.terms.items()}
    for combination in combinations:
        _require_below(problem, settings, combination)
        problem.settings = replace(settings, budgets=combination)
        if settings.config.growth > 1:
            continue  # the network that is searched in is another
        try:
            problem.limit()
        except UnreachableBudgetError as error:
            raise _both_ends(error, problem, combination) from error
    return [{b.cost: b.limit(originals[b.cost]) for b in combination} for combination in combinations]


def size(limits: Limits) -> float:
    """How large budgets are, for an order of them."""
    return sum(math.log(value) for value in limits.values())


def nearest_above(index: int, done: Sequence[int], limits: Sequence[Limits]) -> int | None:
    """Of the budgets ``done`` the smallest that are nowhere below those of ``index``."""
    mine = limits[index]
    larger = [i for i in done if all(limits[i][cost] >= mine[cost] for cost in mine)]
    return min(larger, key=lambda i: size(limits[i]), default=None)


def _require_below(problem: Problem, settings: Settings, combination: Combination) -> None:
    """Refuse a budget that the model is within already, unless the method looks for better networks of any cost."""
    method = settings.method
    for budget in combination:
        term = problem.terms[budget.cost]
        if budget.limit(term.original) > term.original * (1 + 1e-9) and (method.points or not method.improves):
            raise UsageError(
                f"The {budget.cost} budget {budget.text} is above what the model costs "
                f"({readable(term.original, term.unit)}), so nothing would be removed; leave it out, or write 100%."
            )


def _both_ends(error: UnreachableBudgetError, problem: Problem, combination: Combination) -> UnreachableBudgetError:
    """The error with the largest cost, too; it names the smallest."""
    terms = [problem.terms[budget.cost] for budget in combination]
    largest = ", ".join(f"{term.name} {readable(term.original, term.unit)}" for term in terms)
    return UnreachableBudgetError(f"{error} The largest is what the model costs: {largest}. Nothing was trained.")
