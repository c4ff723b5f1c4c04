"""FiGS as a search method."""

from __future__ import annotations

from compressor.search.base import SearchContext
from compressor.search.methods.figs.config import FigsConfig
from compressor.search.methods.figs.learner import FigsLearner
from compressor.search.methods.oneshot.config import OneShotConfig
from compressor.search.methods.oneshot.method import decided
from compressor.search.result import SearchResult
from compressor.search.training.learner import learn, require_data, search_steps, train_decided


class Figs:
    """The method on the program's own training loop."""

    def learner(self, context: SearchContext) -> FigsLearner:
        config = FigsConfig.from_options(context.options)
        projector = context.projector(config.decides)
        projector.check_reachable()
        return FigsLearner(context.model, projector, config)

    def run(self, context: SearchContext) -> SearchResult:
        data = require_data(context, "figs")
        config = FigsConfig.from_options(context.options)
        steps = search_steps(data, config, context.steps.accumulate)
        if steps < config.needed_steps:
            cut = decided(context, OneShotConfig(depth=config.depth))
            found = train_decided(context, data, config, cut)
            counted = f"{steps} step{'s' * (steps != 1)}"
            context.warn(
                f"The search has {counted} and needs {config.needed_steps} to do better than one shot: what is kept is "
                "decided by importance, and the steps train that. To search, give it more epochs (--search-epochs), or "
                "least_steps 0."
            )
            return found
        return learn(context, data, config, self.learner(context))
