"""Whether every budget of a sweep can be reached, found out before anything is trained."""

from __future__ import annotations

from itertools import product
from typing import Any

from compressor.errors import CompressorError
from compressor.jobs.loading import available_device, load_subject
from compressor.jobs.run import job_settings
from compressor.jobs.sweeps.config import SweepConfig
from compressor.nn.tensors import to_device
from compressor.pipeline.events import Events
from compressor.pipeline.problem import Problem
from compressor.pipeline.reach import require_reachable
from exporters.example import Example


def find_limits(sweep: SweepConfig, events: Events) -> list[dict[str, float]]:
    """By cost the most that each combination of budgets allows, in the cost's base unit; those of the first target.

    Raises:
        UnreachableBudgetError: one is below what a method can bring the model to; names the smallest and the largest,
            and of several methods or targets which.
        UsageError: one is above what the model costs, or the settings cannot be used. Others as ``Problem.trace``.
    """
    first = sweep.job(sweep.methods[0], sweep.budgets[0], sweep.seeds[0], sweep.targets[0])
    device = available_device(first.device)
    of = list(product(sweep.methods, sweep.targets))
    told = [job_settings(sweep.job(method, sweep.budgets[0], sweep.seeds[0], target)) for method, target in of]
    for rounds in told:
        for settings in rounds:
            settings.require_data_for(first.data)
    with events.stage("load"):
        subject = load_subject(first)
    model = subject.loaded.model.to(device)
    call: Any = to_device((subject.call.args, dict(subject.call.kwargs)), device)
    found: list[list[dict[str, float]]] = []
    for (method, target), rounds in zip(of, told, strict=True):
        problem = Problem(model, Example(*call), rounds[-1], lambda _: None)
        try:
            with events.stage("trace"):
                problem.trace()
            if problem.is_measured:
                with events.stage("measure the target"):
                    problem.measure(copied=bool(rounds[-1].train_epochs))
            found.append(require_reachable(problem, rounds[-1], sweep.budgets))
        except CompressorError as error:
            whose = [method] if len(sweep.methods) > 1 else []
            whose += [f"target {target}"] if len(sweep.targets) > 1 else []
            if not whose:
                raise
            raise type(error)(f"{', '.join(whose)}: {error}") from error
        finally:
            problem.close()
    return found[0]
