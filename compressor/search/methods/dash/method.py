"""DASH as a search method."""

from __future__ import annotations

from dataclasses import replace

import torch

from compressor.data.subsampled import Subsampled
from compressor.search.base import SearchContext
from compressor.search.methods.dash.config import DashConfig
from compressor.search.methods.dash.learner import DashLearner
from compressor.search.result import SearchResult
from compressor.search.training.learner import learn, require_data

#: Rates of the weights, for one prediction and for one at every position (appendix A.5.2).
_LR, _DENSE_LR = 0.1, 0.01


class Dash:
    """The method on the program's own training loop."""

    def run(self, context: SearchContext) -> SearchResult:
        data = require_data(context, "dash")
        config = DashConfig.from_options(context.options)
        projector = context.projector(config.decides, depth=False)
        projector.check_reachable()
        lr = config.lr or (_DENSE_LR if data.task.dense else _LR)
        schedule = replace(config, lr=lr)
        learner = DashLearner(context.model, projector, config, lr=lr, seed=context.seed)
        if learner.as_it_is:
            context.warn(
                "No convolution can have another kernel within the budgets, so dash leaves the network as it is and "
                "trains nothing. Raise the budgets, or give smaller --kernel-sizes or --dilations."
            )
            learner.supernet.restore_()
            return SearchResult(projector.start, torch.zeros(context.graph.n_units), [], trained=False)
        if config.share < 1:
            data = replace(data, train=Subsampled(data.train, config.share))
        try:
            found = learn(
                context,
                data,
                schedule,  # type: ignore[arg-type]  # its rate is given now
                learner,
                schedule="steps",
                milestones=(config.decay_at,),
                decay=config.decay,
                grad_clip=config.clip,
            )
            if learner.undecided:
                context.tell(
                    f"At {learner.undecided} of {len(context.graph.choices)} convolutions no kernel is ahead of the "
                    "one that is there by more than chance (--dash.doubt). A longer search, or a larger --dash.share, "
                    "tells more."
                )
            return found
        finally:
            learner.supernet.restore_()
