"""A sweep's front, and which of its networks is the best within budgets, from the ``front.json`` that the job wrote.

It is read here without torch. The job of kind pick decides by the same rule (``search.front.Front.best``), and writes
the network.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from compressor.budget import Budget
from compressor.errors import UnreachableBudgetError, UsageError
from compressor.report import wording

FILE = "front.json"
_CURE = "run the job again"


@dataclass(frozen=True)
class Point:
    """A network of a front. ``costs`` are in the units of the front; ``folder`` is that of its report, if any."""

    name: str
    costs: Mapping[str, float]
    score: float | None
    folder: str | None = None
    beaten_by: str | None = None


@dataclass(frozen=True)
class FrontView:
    """The points of one target, cheapest first in ``costs[0]``.

    Attributes:
        costs: those that budgets were about; each point has these, and perhaps more.
        original: what the original costs; budgets may be shares of it.
        metric: what scores are; ``before`` is the original's.
    """

    target: str | None
    points: Sequence[Point]
    costs: Sequence[str]
    original: Mapping[str, float]
    units: Mapping[str, str]
    metric: str = ""
    lower_is_better: bool = False
    before: float | None = None
    finished: bool = True
    model: str = ""

    def best(self, budgets: Sequence[Budget]) -> Point:
        """The best point within all budgets. Raises ``UnreachableBudgetError`` if none is within them, ``UsageError``
        for a budget of a cost that is not known."""
        for budget in budgets:
            if budget.cost not in self.original:
                raise UsageError(
                    f"The front knows {', '.join(self.original)}; there is no budget of {budget.cost} to be met."
                )
        limits = {budget.cost: budget.limit(self.original[budget.cost]) for budget in budgets}
        within = [p for p in self.points if all(p.costs[cost] <= limit for cost, limit in limits.items())]
        if not within:
            raise UnreachableBudgetError(f"No network is within the budget: {self._ends(limits)}.")
        return min(within, key=lambda point: (-self.quality(point), self._share(point)))

    def beside(self, networks: FrontView) -> FrontView:
        """With the networks that the only search of the sweep left, which a pick may take, too; before the points, as
        of what scores alike they are taken. Unchanged if they have other costs."""
        if not set(self.original) <= set(networks.original):
            return self
        more = []
        for network in networks.points:
            better = next((point for point in self.points if self._beats(point, network)), None)
            costs = {cost: network.costs[cost] for cost in self.original}
            more.append(replace(network, costs=costs, beaten_by=None if better is None else better.name))
        both = sorted([*more, *self.points], key=lambda point: point.costs[self.costs[0]])
        return replace(self, points=both)

    def _beats(self, point: Point, other: Point) -> bool:
        """Whether it is better, and no dearer in what is compared."""
        cheap = all(point.costs[cost] <= other.costs[cost] for cost in self.costs)
        return cheap and self.quality(point) > self.quality(other)

    def quality(self, point: Point) -> float:
        """Higher is better. Where nothing was evaluated, what keeps more is taken to be better."""
        if point.score is None:
            return self._share(point)
        return -point.score if self.lower_is_better else point.score

    def _share(self, point: Point) -> float:
        return sum(value / self.original[c] if self.original[c] else 0.0 for c, value in point.costs.items())

    def _ends(self, limits: Mapping[str, float]) -> str:
        said = []
        for cost, limit in limits.items():
            unit = self.units.get(cost, "")
            least = min((point.costs[cost] for point in self.points), default=math.inf)
            said.append(
                f"{wording.cost_name(cost).lower()} goes down to {wording.amount(least, unit)}, and at most "
                f"{wording.amount(limit, unit)} was asked for"
            )
        return "; ".join(said)


def read_front(document: Any) -> list[FrontView]:
    """The fronts in a ``front.json``, one for each target. Raises ``UsageError`` for what holds none."""
    try:
        if document["kind"] == "networks":
            scores = dict(document.get("scores") or {})
            return [_front(document["front"], document, scores.get("metric", ""), scores.get("before"), folders=False)]
        if document["kind"] == "sweep":
            metric, before = str(document["metric"]), document.get("before")
            return [_front(each, document, metric, before, folders=True) for each in document["fronts"]]
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise UsageError(f"{FILE} does not hold together ({error}); {_CURE}.") from error
    raise UsageError(f"{FILE} is no front that this program reads; {_CURE}.")


def search_of(document: Any) -> str | None:
    """The folder of the one search that served all points of a sweep; None where there were others, or none."""
    names, rows = document.get("searches") or [], document.get("points") or []
    methods = {str(row.get("method")) for row in rows}
    return str(names[0]) if len(names) == 1 and len(methods) == 1 else None


def _front(front: Any, document: Any, metric: str, before: Any, *, folders: bool) -> FrontView:
    original = {str(cost): float(value) for cost, value in front["original"].items()}
    compared = [str(cost) for cost in front.get("compared") or original]
    beaten = {str(row["name"]): row.get("dominated_by") for row in document.get("points", ())}
    points = []
    for row in front["rows"]:
        costs = {str(cost): float(value) for cost, value in row["costs"].items()}
        if set(costs) != set(original) or not all(map(math.isfinite, costs.values())):
            raise ValueError(f"costs of {row['name']}")
        score = None if row["score"] is None else float(row["score"])
        folder = str(row["found"]) if folders else None
        points.append(Point(str(row["name"]), costs, score, folder, beaten.get(str(row["name"]))))
    return FrontView(
        target=front.get("target"),
        points=sorted(points, key=lambda point: point.costs[compared[0]]),
        costs=compared,
        original=original,
        units={str(cost): str(unit) for cost, unit in document.get("units", {}).items()},
        metric=str(metric),
        lower_is_better=bool(front["lower_is_better"]),
        before=None if before is None else float(before),
        finished=bool(document.get("finished", True)),
        model=str(document.get("model", "")),
    )
