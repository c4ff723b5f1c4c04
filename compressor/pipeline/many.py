"""How searches serve several budgets: all at once, or one after the other from the large to the small."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import fields
from typing import Any

from compressor.budget import Budget, parse_budgets
from compressor.errors import UsageError
from compressor.options import shown
from compressor.pipeline.reach import Combination, Limits
from compressor.search import get_method
from compressor.search.names import names_of


def read_combinations(budgets: Any) -> tuple[Combination, ...]:
    """Budgets as a list of mappings: ``[{"flops": "25%"}, {"flops": "50%"}]``. All have their costs in the order of the
    first.

    Raises:
        UsageError: it is none, or empty; the mappings are of different costs, or two are alike.
    """
    if isinstance(budgets, (str, Mapping)) or not isinstance(budgets, Sequence) or not budgets:
        raise UsageError(
            f"budgets must be a list such as [{{'flops': '25%'}}, {{'flops': '50%'}}], not {shown(budgets)}."
        )
    given = [{budget.cost: budget for budget in parse_budgets(each)} for each in budgets]
    first = given[0]
    for each in given:
        if each.keys() != first.keys():
            raise UsageError(
                f"All budgets of a sweep must be of the same costs; one has {', '.join(sorted(each))}, the first "
                f"{', '.join(sorted(first))}."
            )
    found = tuple(tuple(each[cost] for cost in first) for each in given)
    if twice := next((each for i, each in enumerate(found) if each in found[:i]), None):
        raise UsageError(f"The budgets {', '.join(map(str, twice))} are given twice; name them once.")
    return found


def name_of(budgets: Combination) -> str:
    """The name of a point, such as ``flops-25pct``."""
    return "-".join(f"{budget.cost}-{slug(budget.normal.replace('%', 'pct'))}" for budget in budgets)


def slug(text: str) -> str:
    """Text as a part of the name of a folder."""
    return re.sub(r"[^\w.+-]+", "-", text).strip("-")


def has_points(search: str) -> bool:
    """Whether one search finds networks for many budgets."""
    names = names_of(search)
    return len(names) == 1 and get_method(names[0]).points


def goes_on(search: str, options: Mapping[str, Any]) -> bool:
    """Whether the search may begin at what it found for larger budgets: a method that cuts or trains and cuts, in the
    network's own size. What only chooses where to pool begins at the original."""
    names = names_of(search)
    if len(names) > 1:
        return False
    method = get_method(names[0])
    told = method.read(options)
    return not method.points and told.growth == 1 and "pooling" not in told.decides


def highest(budgets: Sequence[Combination], limits: Sequence[Limits]) -> Combination:
    """The largest budget of each cost."""
    return _end(budgets, limits, max)


def lowest(budgets: Sequence[Combination], limits: Sequence[Limits]) -> Combination:
    """The smallest budget of each cost."""
    return _end(budgets, limits, min)


def _end(budgets: Sequence[Combination], limits: Sequence[Limits], end: Any) -> Combination:
    """Of each cost the highest or the lowest budget."""

    def of(cost: int) -> Budget:
        index: int = end(range(len(budgets)), key=lambda i: limits[i][budgets[i][cost].cost])
        return budgets[index][cost]

    return tuple(of(cost) for cost in range(len(budgets[0])))


def down_to(search: str, options: Mapping[str, Any], most: Combination, least: Combination) -> dict[str, Any]:
    """The options of a search for many budgets: it is told the lowest, if it has an option for them."""
    told = dict(options)
    if "lowest" in {field.name for field in fields(get_method(search).config)} and least != most:
        told.setdefault("lowest", ",".join(f"{budget.cost}={budget.normal}" for budget in least))
    return told
