"""DNArch as a search method."""

from __future__ import annotations

import numpy as np
import torch

from compressor.arrays import FloatArray
from compressor.data import Data
from compressor.nn.generated import computed
from compressor.search.base import SearchContext
from compressor.search.importance.rank import rank
from compressor.search.methods.dnarch.components import component_masks
from compressor.search.methods.dnarch.config import ACROSS, DnarchConfig
from compressor.search.methods.dnarch.decision import Decider
from compressor.search.methods.dnarch.learner import DnarchLearner
from compressor.search.methods.oneshot.config import OneShotConfig
from compressor.search.methods.oneshot.method import decided
from compressor.search.result import SearchResult
from compressor.search.training.learner import learn, require_data, search_steps, train_decided


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
        config = DnarchConfig.from_options(context.options)
        components = config.components(context.graph)
        total = search_steps(data, config, context.steps.accumulate)
        steps, needed = config.learning_steps(total), config.needed_steps(components)
        projector = context.projector(frozenset(components))
        whole = not projector.chosen and projector.fits(context.graph.all_units())  # nothing has to be decided
        if steps < needed and not whole and computed(context.model) is None:
            return self._cut(context, data, config, steps, needed)
        if steps < ACROSS and not whole:
            context.tell(
                f"  masks learn in {_counted(steps)} here, and take {ACROSS} from one end to the other: give the "
                "search more epochs (--search-epochs)"
            )
        session = self.learner(context)
        optimizer = config.optimizer or (None if computed(context.model) is None else "adamw")
        return learn(context, data, config, session, optimizer)

    def _cut(self, context: SearchContext, data: Data, config: DnarchConfig, steps: int, needed: int) -> SearchResult:
        """What one shot keeps, trained for all steps."""
        own = OneShotConfig(
            depth="depth" in config.components(context.graph), importance=config.measure(with_data=True)
        )
        found = train_decided(context, data, config, decided(context, own), config.optimizer)
        context.warn(
            f"Masks would learn in {_counted(steps)}, and take {needed} from one end to the other: what is kept is "
            "decided by importance, and all steps train that. To search, give it more epochs (--search-epochs), or "
            "least_steps 0."
        )
        return found

    def _scores(self, context: SearchContext, config: DnarchConfig) -> tuple[FloatArray, FloatArray]:
        measure = config.measure(with_data=context.data is not None)
        if measure is None:
            return np.zeros(context.graph.n_units), np.zeros(len(context.graph.blocks))
        return rank(context, measure)


def _counted(steps: int) -> str:
    return f"{steps} step{'s' * (steps != 1)}"
