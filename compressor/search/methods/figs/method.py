"""FiGS as a search method."""

from __future__ import annotations

from compressor.search.base import SearchContext
from compressor.search.methods.figs.config import FigsConfig
from compressor.search.methods.figs.learner import FigsLearner
from compressor.search.result import SearchResult
from compressor.search.training.learner import learn, require_data


class Figs:
    """The method on the program's own training loop."""

    def learner(self, context: SearchContext) -> FigsLearner:
        config = FigsConfig.from_options(context.options)
        projector = context.projector(config.decides)
        projector.check_reachable()
        return FigsLearner(context.model, projector, config)

    def run(self, context: SearchContext) -> SearchResult:
        data = require_data(context, "figs")
        session = self.learner(context)
        return learn(context, data, session.config, session)
