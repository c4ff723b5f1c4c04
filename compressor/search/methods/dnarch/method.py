"""DNArch as a search method."""

from __future__ import annotations

import numpy as np

from compressor.arrays import FloatArray
from compressor.nn.generated import computed
from compressor.search.base import SearchContext
from compressor.search.importance.rank import rank
from compressor.search.methods.dnarch.config import DnarchConfig
from compressor.search.methods.dnarch.learner import DnarchLearner
from compressor.search.result import SearchResult
from compressor.search.training.learner import learn, require_data


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

    def run(self, context: SearchContext) -> SearchResult:
        data = require_data(context, "dnarch")
        session = self.learner(context)
        optimizer = session.config.optimizer or (None if computed(context.model) is None else "adamw")
        return learn(context, data, session.config, session, optimizer)

    def _scores(self, context: SearchContext, config: DnarchConfig) -> tuple[FloatArray, FloatArray]:
        if config.importance is None:
            return np.zeros(context.graph.n_units), np.zeros(len(context.graph.blocks))
        return rank(context, config.importance)
