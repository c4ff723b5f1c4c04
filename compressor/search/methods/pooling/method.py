"""The search for where to pool, as a search method."""

from __future__ import annotations

import numpy as np
from torch import Tensor, nn

from compressor.data import Data
from compressor.errors import UnreachableBudgetError
from compressor.graph.groups import Alternatives
from compressor.nn.tensors import state
from compressor.search.base import SearchContext
from compressor.search.constraints.constraint import readable
from compressor.search.constraints.projector import Projector
from compressor.search.methods.pooling.config import PoolingConfig
from compressor.search.methods.pooling.decision import Rank, costs_of, in_order
from compressor.search.methods.pooling.held_out import HeldOut
from compressor.search.methods.pooling.learner import PoolingLearner
from compressor.search.methods.pooling.weight_sets import WeightSets, free_memory, memory_needed
from compressor.search.result import SearchResult
from compressor.search.training.learner import learn, rate, require_data
from compressor.train import TrainConfig, Trainer, evaluate, recalibrate_batchnorm
from compressor.train.modes import model_device
from compressor.train.rng import derive_seed


class Pooling:
    """The method on the program's own training loop."""

    def require_reachable(self, context: SearchContext) -> None:
        """Raise ``UnreachableBudgetError`` if no configuration is within the budgets."""
        drawn(*_asked(context, PoolingConfig.from_options(context.options)))

    def run(self, context: SearchContext) -> SearchResult:
        data = require_data(context, "pooling")
        config = PoolingConfig.from_options(context.options)
        projector, choice = _asked(context, config)
        open_ = drawn(projector, choice)
        if len(open_) > config.evaluated:
            context.warn(
                f"{len(open_)} configurations are searched; the {config.evaluated} with the best moving averages are "
                "scored on the whole held-out split, the others are ranked by their averages (--pooling.evaluated)."
            )
        before = {name: t.clone() for name, t in state(context.model).items()} if config.fresh else None
        free = free_memory(model_device(context.model))
        context.tell(memory_needed(context.model, config.mixtures, free, offload=config.offload))
        sets = WeightSets(context.model, choice.alternatives, config.mixtures, free=free, offload=config.offload)
        size = max(1, round(config.validation * config.batch_size))
        held_out = HeldOut(data, size, derive_seed(context.seed, "held out"), context.loss_fn)
        learner = PoolingLearner(sets, projector, choice, open_, config, data, held_out, context.loss_fn)
        decision = learn(context, data, config, learner, weight_decay=config.weight_decay)
        if config.top_k > 1:
            decision = _best_trained(context, data, config, learner, decision)
        if before is not None:
            decision.weights = {choice.name: dict.fromkeys(decision.weights[choice.name], before)}
        return decision


def _asked(context: SearchContext, config: PoolingConfig) -> tuple[Projector, Alternatives]:
    """What decides, and between what."""
    (choice,) = [each for each in context.graph.choices if each.of == "pooling"]
    return context.projector(config.decides, depth=False), choice


def drawn(projector: Projector, choice: Alternatives) -> list[int]:
    """Which alternatives are configurations within all budgets.

    Raises:
        UnreachableBudgetError: none is; the cheapest is named.
    """
    every = list(range(1, len(choice)))
    found = []
    for index in every:
        units = projector.start.copy()
        units[choice.units] = np.arange(len(choice)) == index
        if projector.fits(units):
            found.append(index)
    if found:
        return found
    costs = costs_of(projector, choice, every)
    limits = {c.name: c for c in projector.constraints}

    def over(index: int) -> float:
        return max(costs[index][name] / c.limit for name, c in limits.items())

    cheapest = min(range(len(every)), key=over)
    told = ", ".join(
        f"{name} {readable(costs[cheapest][name], c.term.unit)} of {readable(c.limit, c.term.unit)}"
        for name, c in limits.items()
    )
    raise UnreachableBudgetError(
        f"None of the {len(every)} pooling configurations is within the budgets; the one that comes closest is "
        f"{choice.alternatives[every[cheapest]].name} ({told}). Raise the budgets, or let a search follow that removes "
        "channels: --search pooling,figs."
    )


def _best_trained(
    context: SearchContext, data: Data, config: PoolingConfig, learner: PoolingLearner, decision: SearchResult
) -> SearchResult:
    """Of the best configurations, each trained on by itself, the one that then does best on the held-out split."""
    finals: dict[Rank, dict[str, Tensor]] = {}
    for place, each in enumerate(learner.ranks[: config.top_k]):
        network = learner.sets.rewritten(learner.open[each.configuration], each.weights)
        _train_on(context, data, config, network, place)
        found = evaluate(network, data.val, loss_fn=context.loss_fn, task=data.task)
        each.score = None if found.lost else found.score
        finals[each] = {name: t.clone() for name, t in state(network).items()}
    best, *others = in_order(list(finals))
    learner.ranks = [best, *others, *learner.ranks[len(finals) :]]
    return learner.taking(best, decision.history, finals[best])


def _train_on(context: SearchContext, data: Data, config: PoolingConfig, network: nn.Module, place: int) -> None:
    recalibrate_batchnorm(network, data.train, seed=context.seed)
    told = TrainConfig(
        epochs=config.top_epochs,
        batch_size=config.batch_size,
        lr=rate(config, context) / 10,
        optimizer=context.steps.optimizer,
        weight_decay=config.weight_decay,
        seed=derive_seed(context.seed, "top", place),
        max_steps=config.max_steps,
        **context.steps.told(),
    )
    checkpoint = context.checkpoint and context.checkpoint.with_suffix(f".top{place}{context.checkpoint.suffix}")
    Trainer(network, data, told, loss_fn=context.loss_fn, checkpoint=checkpoint).run()
