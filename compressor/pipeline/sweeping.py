"""Several budgets for a model of the user's own, in this process: one training for all, or one compression for each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from torch import nn

from compressor.budget import Budget
from compressor.nn.tensors import example_of
from compressor.pipeline.events import Events
from compressor.pipeline.many import down_to, goes_on, has_points, highest, lowest
from compressor.pipeline.networks import Networks, networks_of
from compressor.pipeline.picked import Picked
from compressor.pipeline.reach import Combination, nearest_above, require_reachable, size
from compressor.pipeline.rounds import describe_rounds, run_rounds
from compressor.pipeline.settings import Settings
from compressor.pipeline.stages import Pipeline
from compressor.pipeline.summary import describe_result
from compressor.pipeline.warm import describe_from, run_from
from compressor.report import Accuracy, BudgetResult, PredictionError, Report

if TYPE_CHECKING:
    from compressor.data import Data
    from exporters.example import Example


@dataclass
class Swept:
    """What a sweep gave.

    Attributes:
        pipelines: by combination of budgets the finished pipeline with its report; empty for a search that serves all.
        networks: what a search for all budgets left, and ``pipeline`` the one that made it.
    """

    limits: list[dict[str, float]]
    pipelines: dict[int, tuple[Pipeline, Report]] = field(default_factory=dict)
    networks: Networks | None = None
    pipeline: Pipeline | None = None


def run_all(
    model: nn.Module,
    example_inputs: Any,
    rounds: Sequence[Settings],
    combinations: Sequence[Combination],
    *,
    example_kwargs: dict[str, Any] | None = None,
    data: Data | None = None,
    events: Events,
    cold: bool = False,
) -> Swept:
    """Compress ``model``, which is not changed, to every combination of budgets.

    Args:
        rounds: what is asked for, but for budgets.
        cold: begin each search at the model itself, not at the result for the next larger budgets.

    Raises:
        UnreachableBudgetError, UsageError: as ``require_reachable``, before anything is trained. Others are those of
        the stages.
    """
    common: dict[str, Any] = {"example_kwargs": example_kwargs, "data": data, "events": events}
    last = rounds[-1]
    search = ",".join(settings.search for settings in rounds)
    swept = Swept(_limits(model, example_of(example_inputs, example_kwargs), last, combinations, events))
    if has_points(search):
        most, least = highest(combinations, swept.limits), lowest(combinations, swept.limits)
        options = down_to(search, last.options, most, least)
        alone = replace(last, budgets=most, options=options, finetune_epochs=0, tune="none")
        (swept.pipeline,) = run_rounds(model, example_inputs, [alone], **common)
        swept.networks = networks_of(swept.pipeline)
        return swept
    warm = not cold and goes_on(search, last.options)
    for index in sorted(range(len(combinations)), key=lambda i: -size(swept.limits[i])):
        told = [replace(settings, budgets=combinations[index]) for settings in rounds]
        start = nearest_above(index, list(swept.pipelines), swept.limits) if warm else None
        if start is None:
            done = run_rounds(model, example_inputs, told, **common)
            found = done[-1], describe_rounds(done, name=type(done[0].model).__name__)
        else:
            before, report = swept.pipelines[start]
            pipeline = run_from(before.compressed, model, example_inputs, told[-1], **common)
            found = pipeline, describe_from(pipeline, report, name=report.model)
        swept.pipelines[index] = found
    return swept


def _limits(
    model: nn.Module, example: Example, settings: Settings, combinations: Sequence[Combination], events: Events
) -> list[dict[str, float]]:
    """The limits of all combinations, all of which can be reached."""
    first = replace(settings, budgets=combinations[0])
    problem = Pipeline(model, example.args, first, example_kwargs=dict(example.kwargs)).problem
    try:
        with events.stage("trace"):
            problem.trace()
        if problem.is_measured:
            with events.stage("measure the target"):
                problem.measure(copied=False)
        return require_reachable(problem, problem.settings, combinations)
    finally:
        problem.close()


def build_picked(
    networks: Networks,
    model: nn.Module,
    example: Example,
    settings: Settings,
    budgets: Sequence[Budget],
    *,
    events: Events,
) -> tuple[Picked, Report]:
    """The best network within ``budgets`` as a finished pipeline, with its report. ``model`` is given the weights."""
    chosen = networks.front.best(budgets)
    only = replace(networks, front=networks.front.only(chosen))
    timed = [budget for budget in budgets if budget.cost == "latency"]
    told = tuple(budget for budget in budgets if budget.cost != "latency")
    settings = replace(settings, budgets=told, finetune_epochs=0, train_epochs=0, target=None)
    picked = Picked(only, model, example.args, settings, example_kwargs=dict(example.kwargs), events=events)
    picked.run()
    report = describe_result(picked, name=type(model).__name__)
    for budget in timed:
        original = networks.front.original["latency"]
        limit, reached = budget.limit(original), chosen.costs["latency"]
        report.budgets.append(BudgetResult("latency", "ms", budget.text, original, limit, reached))
    metric = networks.scores.metric
    if chosen.score is None or not metric:  # nothing was evaluated by a metric of the program
        return picked, report
    if networks.front.lower_is_better:
        report.prediction_error = PredictionError("val", after_search=chosen.score, metric=metric)
    else:
        report.accuracy = Accuracy("val", after_search=chosen.score, metric=metric)
    return picked, report
