"""Whether every budget of a sweep can be reached, found out before anything is trained."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from compressor.errors import UnreachableBudgetError, UsageError
from compressor.jobs.loading import available_device, load_subject
from compressor.jobs.run import job_settings
from compressor.jobs.sweeps.config import Combination, SweepConfig
from compressor.nn.tensors import to_device
from compressor.pipeline.events import Events
from compressor.pipeline.problem import Problem
from compressor.pipeline.settings import Settings
from compressor.search.constraints.constraint import readable
from exporters.example import Example


def find_limits(sweep: SweepConfig, events: Events) -> list[dict[str, float]]:
    """By cost the most that each combination of budgets allows, in the cost's base unit; those of the first target.

    Raises:
        UnreachableBudgetError: one is below what a method can bring the model to; names the smallest and the largest.
        UsageError: one is above what the model costs, or the settings cannot be used. Others as ``Problem.trace``.
    """
    first = sweep.job(sweep.methods[0], sweep.budgets[0], sweep.seeds[0], sweep.targets[0])
    device = available_device(first.device)
    told = {
        (method, target): job_settings(sweep.job(method, sweep.budgets[0], sweep.seeds[0], target))
        for method in sweep.methods
        for target in sweep.targets
    }
    for rounds in told.values():
        for settings in rounds:
            settings.require_data_for(first.data)
    with events.stage("load"):
        subject = load_subject(first)
    model = subject.loaded.model.to(device)
    call: Any = to_device((subject.call.args, dict(subject.call.kwargs)), device)
    found: list[dict[str, float]] | None = None
    for rounds in told.values():
        limits = _checked(sweep, Problem(model, Example(*call), rounds[-1], lambda _: None), rounds[-1], events)
        found = limits if found is None else found
    assert found is not None
    return found


def _checked(sweep: SweepConfig, problem: Problem, settings: Settings, events: Events) -> list[dict[str, float]]:
    """The limits of all combinations for one method and target."""
    try:
        with events.stage("trace"):
            problem.trace()
        if problem.is_measured:
            with events.stage("measure the target"):
                problem.measure(copied=bool(settings.train_epochs))
        originals = {name: term.original for name, term in problem.terms.items()}
        for combination in sweep.budgets:
            _require_below(problem, settings, combination)
            problem.settings = replace(settings, budgets=combination)
            if settings.config.growth > 1:
                continue  # the network that is searched in is another
            try:
                problem.limit()
            except UnreachableBudgetError as error:
                raise _both_ends(error, problem, combination) from error
        return [{b.cost: b.limit(originals[b.cost]) for b in combination} for combination in sweep.budgets]
    finally:
        problem.close()


def _require_below(problem: Problem, settings: Settings, combination: Combination) -> None:
    """Refuse a budget that the model is within already, unless the method looks for better networks of any cost."""
    method = settings.method
    for budget in combination:
        term = problem.terms[budget.cost]
        if budget.limit(term.original) > term.original * (1 + 1e-9) and (method.points or not method.improves):
            raise UsageError(
                f"The {budget.cost} budget {budget.text} is above what the model costs "
                f"({readable(term.original, term.unit)}), so nothing would be removed; leave it out, or write 100%."
            )


def _both_ends(error: UnreachableBudgetError, problem: Problem, combination: Combination) -> UnreachableBudgetError:
    """The error with the largest cost, too; it names the smallest."""
    largest = ", ".join(
        f"{budget.cost} {readable(problem.terms[budget.cost].original, problem.terms[budget.cost].unit)}"
        for budget in combination
    )
    return UnreachableBudgetError(f"{error} The largest is what the model costs: {largest}. Nothing was trained.")
