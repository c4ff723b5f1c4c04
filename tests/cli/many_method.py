"""A search that leaves networks for many budgets at once (``many``): one-shot decisions at shares of the cost."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

import torch

from compressor.options import Text, option
from compressor.search.base import SearchContext
from compressor.search.constraints.constraint import Constraint, hard_sizes
from compressor.search.methods.oneshot.method import OneShot
from compressor.search.options import Method, MethodConfig
from compressor.search.points import Point
from compressor.search.result import SearchResult

SHARES = (0.3, 0.45, 0.6, 0.8)
STATISTIC = 0.25
"""What every kept running mean is in every point."""


@dataclass(frozen=True)
class ManyConfig(MethodConfig):
    owner: ClassVar[str] = "many"
    lowest: str | None = option(None, Text(), "Lowest budgets of interest.")


class Many:
    """Scores a network by what is left of it."""

    def run(self, context: SearchContext) -> SearchResult:
        points = []
        for number, share in enumerate(SHARES):
            limits = [Constraint(c.term, share * c.term.original) for c in context.constraints]
            found = OneShot().run(replace(context, constraints=limits, options={}))
            gates = found.gates_or_all(context.graph)
            with torch.no_grad():
                sizes = hard_sizes(context.graph, found.units, gates)
                costs = {c.name: float(c.term(sizes)) for c in context.constraints}
            statistics = {}
            for parameter in context.graph.parameters.values():
                if parameter.name.endswith("running_mean"):
                    axis = parameter.axes[0]
                    statistics[parameter.name] = torch.full((int(axis.keep(found.units).sum()),), STATISTIC)
            points.append(
                Point(f"n{number}", found.units, gates, costs, 0.5 + share / 10, {"share": share}, statistics)
            )
        within = [p for p in points if all(p.costs[c.name] <= c.limit for c in context.constraints)]
        taken, priority = within[-1], torch.ones(context.graph.n_units, dtype=torch.float64)
        history = [{"step": i, "policies": {"max": {"width": 1.0}, "min": {"width": 0.3}}} for i in range(3)]
        evaluated = [point.row() for point in points]
        return SearchResult(taken.units, priority, history, taken.gates, points=points, evaluated=evaluated)


METHOD = Method("many", ManyConfig, "many_method:Many", trains=False, improves=True, points=True)
