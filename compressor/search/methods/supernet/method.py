"""The search in a supernet, as a search method."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from compressor.arrays import FloatArray
from compressor.costs import REPORTED_COSTS, CostTerm, build
from compressor.errors import UnreachableBudgetError, UsageError
from compressor.search.base import SearchContext
from compressor.search.constraints.constraint import readable
from compressor.search.importance.rank import rank
from compressor.search.methods.supernet.config import SupernetConfig
from compressor.search.methods.supernet.decision import Selection
from compressor.search.methods.supernet.dimensions import find_dimensions
from compressor.search.methods.supernet.learner import SupernetLearner
from compressor.search.methods.supernet.space import Space
from compressor.search.result import SearchResult
from compressor.search.training.learner import learn, require_data
from compressor.search.training.subnets import Subnets
from compressor.train.splits import steps_per_epoch


class Supernet:
    """The method on the program's own training loop."""

    def require_reachable(self, context: SearchContext) -> None:
        """Raise ``UnreachableBudgetError`` if even the smallest subnet is over a budget, ``UsageError`` for a lowest
        budget that is above the highest, or of a cost that has none."""
        config = SupernetConfig.from_options(context.options)
        projector, alike = context.projector(config.decides), np.zeros(context.graph.n_units)
        space, terms = Space(projector, find_dimensions(context.model, projector, config, alike)), cost_terms(context)
        lowest_shares(context, config, terms)
        require_reachable(context, space, terms)

    def run(self, context: SearchContext) -> SearchResult:
        data = require_data(context, "supernet")
        config = SupernetConfig.from_options(context.options)
        projector = context.projector(config.decides)
        scores = importance(context, config)
        space = Space(projector, find_dimensions(context.model, projector, config, scores))
        terms = cost_terms(context)
        require_reachable(context, space, terms)
        context.tell(described(space, terms))
        each = steps_per_epoch(data.train, config.batch_size, context.steps.accumulate) if config.epochs else 0
        steps = config.epochs * each
        steps = steps if config.max_steps is None else min(steps, config.max_steps)

        def select(learner: SupernetLearner, history: list[dict[str, Any]]) -> SearchResult:
            return Selection(context, data, config, learner, terms, scores).run(history)

        learner = SupernetLearner(
            Subnets(context.model, context.graph),
            space,
            config,
            data,
            lowest=lowest_shares(context, config, terms),
            steps=steps,
            seed=context.seed,
            select=select,
        )
        return learn(
            context,
            data,
            config,
            learner,
            weight_decay=config.weight_decay,
            decay_norm_and_bias=False,
            warmup_epochs=config.warmup * config.epochs,
        )


def importance(context: SearchContext, config: SupernetConfig) -> FloatArray:
    """What narrow networks keep: a number for every unit, shape (n_units,)."""
    if config.order == "none":
        return -np.arange(context.graph.n_units, dtype=np.float64)
    return rank(context, config.order)[0]


def cost_terms(context: SearchContext) -> dict[str, CostTerm]:
    """Costs that every subnet is described by: those that reports have, and those of the budgets."""
    terms: dict[str, CostTerm] = {name: build(name, context.graph) for name in REPORTED_COSTS}
    return terms | {c.name: c.term for c in context.constraints}


def lowest_shares(context: SearchContext, config: SupernetConfig, terms: Mapping[str, CostTerm]) -> dict[str, float]:
    """The lowest costs of interest, as shares of the network's own.

    Raises:
        UsageError: one without a budget, or above it.
    """
    found, limits = {}, {constraint.name: constraint.limit for constraint in context.constraints}
    for budget in config.lowest_budgets():
        if budget.cost not in limits:
            raise UsageError(
                f"lowest names {budget.cost}, and there is no such budget; there are {', '.join(sorted(limits))}."
            )
        original, unit = terms[budget.cost].original, terms[budget.cost].unit
        least = budget.limit(original)
        if least > limits[budget.cost]:
            raise UsageError(
                f"lowest {budget.cost} ({readable(least, unit)}) is above the budget "
                f"({readable(limits[budget.cost], unit)}); give the lowest budget of interest there, and the highest "
                "as the job's."
            )
        found[budget.cost] = least / original
    return found


def require_reachable(context: SearchContext, space: Space, terms: Mapping[str, CostTerm]) -> None:
    """Raise ``UnreachableBudgetError``, with both ends of the space, if even the smallest subnet is over a budget."""
    least, most = (space.costs(terms, choices) for choices in (space.smallest, space.largest))
    for constraint in context.constraints:
        name, unit = constraint.name, constraint.term.unit
        if least[name] > constraint.limit:
            raise UnreachableBudgetError(
                f"The {name} budget of {readable(constraint.limit, unit)} cannot be reached: the smallest subnet has "
                f"{readable(least[name], unit)} ({100 * least[name] / constraint.term.original:.1f} % of the "
                f"original), the largest {readable(most[name], unit)}. Raise the budget, or let subnets be smaller "
                "(--supernet.choices, --supernet.learn)."
            )


def described(space: Space, terms: Mapping[str, CostTerm]) -> str:
    """The space in a line."""
    kinds: dict[str, int] = {}
    for each in space.dimensions:
        kinds[each.kind] = kinds.get(each.kind, 0) + 1
    listed = ", ".join(f"{count} of {kind}" for kind, count in kinds.items())
    size = math.log10(2) * float(np.log2(space.lengths.astype(np.float64)).sum())
    ends = [space.costs(terms, choices)["flops"] for choices in (space.smallest, space.largest)]
    told = " to ".join(readable(cost, terms["flops"].unit) for cost in ends)
    return f"{len(space)} search dimensions ({listed}), about 1e{size:.0f} subnets, {told}"
