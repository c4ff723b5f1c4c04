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
_ADAMW_LR, _ADAMW_ARCHITECTURE_LR = 0.001, 0.05


class Dash:
    """The method on the program's own training loop."""

    def run(self, context: SearchContext) -> SearchResult:
        data = require_data(context, "dash")
        config = DashConfig.from_options(context.options)
        projector = context.projector(config.decides, depth=False)
        projector.check_reachable()
        config = with_rates(config, context.steps.optimizer, dense=data.task.dense)
        learner = DashLearner(context.model, projector, config, seed=context.seed)
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
                config,
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


def with_rates(config: DashConfig, optimizer: str, *, dense: bool) -> DashConfig:
    """The settings with both rates given. Steps of AdamW are as large as its rate, whatever the gradients are, so the
    architecture weights, which are logits, take larger ones than the network's."""
    lr, of_architecture = config.lr, config.architecture_lr
    if lr is None:
        lr = _ADAMW_LR if optimizer == "adamw" else _DENSE_LR if dense else _LR
    if of_architecture is None:
        of_architecture = _ADAMW_ARCHITECTURE_LR if optimizer == "adamw" else lr / 2
    return replace(config, lr=lr, architecture_lr=of_architecture)
