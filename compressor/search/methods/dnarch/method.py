"""DNArch as a search method."""

from __future__ import annotations

import numpy as np
import torch

from compressor.arrays import FloatArray
from compressor.nn.generated import computed
from compressor.search.base import SearchContext
from compressor.search.importance.rank import rank
from compressor.search.methods.dnarch.components import component_masks
from compressor.search.methods.dnarch.config import DnarchConfig
from compressor.search.methods.dnarch.decision import Decider
from compressor.search.methods.dnarch.learner import DnarchLearner
from compressor.search.result import SearchResult
from compressor.search.training.learner import learn, require_data, search_steps

ACROSS = 50
"""Steps that a mask takes from one end to the other at its fastest pace, with the rise and fall of that."""


class Dnarch:
    """The method on the program's own training loop."""

    def learner(self, context: SearchContext) -> DnarchLearner:
        config = DnarchConfig.from_options(context.options)
        components = config.components(context.graph)
        projector = context.projector(frozenset(components))
        session = DnarchLearner(context.model, projector, config, self._scores(context, config))
        if config.grow > 1:
            session.strengthen_()
        return session

    def require_reachable(self, context: SearchContext) -> None:
        """Raise ``UnreachableBudgetError`` for a budget below what the bounds of the masks leave."""
        config, graph = DnarchConfig.from_options(context.options), context.graph
        projector = context.projector(frozenset(config.components(graph)))
        alike = np.zeros(graph.n_units), np.zeros(len(graph.blocks))
        free, (width, depth, kernel, resolution) = component_masks(
            projector, config, alike, torch.device("cpu"), computed(context.model) is not None
        )
        Decider(projector, free, {"channels": width, "kernel": kernel, "resolution": resolution}, depth)

    def run(self, context: SearchContext) -> SearchResult:
        data = require_data(context, "dnarch")
        session = self.learner(context)
        if (steps := session.learning_steps(search_steps(data, session.config, context.steps.accumulate))) < ACROSS:
            context.tell(
                f"  masks learn in {steps} step{'s' * (steps != 1)} here, and take {ACROSS} from one end to the other: "
                "a cut makes more of so few (--search oneshot); or give the search more epochs (--search-epochs)"
            )
        optimizer = session.config.optimizer or (None if computed(context.model) is None else "adamw")
        return learn(context, data, session.config, session, optimizer)

    def _scores(self, context: SearchContext, config: DnarchConfig) -> tuple[FloatArray, FloatArray]:
        measure = config.measure(with_data=context.data is not None)
        if measure is None:
            return np.zeros(context.graph.n_units), np.zeros(len(context.graph.blocks))
        return rank(context, measure)
