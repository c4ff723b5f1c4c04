"""A search that begins at an earlier, larger result of the same model, as the next round of it.

Budgets, scores and the report are those of the original, which teaches, too; the result's edits and those of the
network it began with make one architecture, which applies to a fresh original.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from torch import nn

from compressor.pipeline.events import Events
from compressor.pipeline.growth import base_budgets
from compressor.pipeline.rounds import all_changed, base_of
from compressor.pipeline.settings import Settings
from compressor.pipeline.stages import Pipeline
from compressor.pipeline.summary import describe_result
from compressor.report import Report

if TYPE_CHECKING:
    from compressor.data import Data
    from compressor.storage.shared_job import WholeJob

#: The stages of the original in a job that begins elsewhere: ``original.train``.
ORIGINAL = "original"


def run_from(
    start: nn.Module,
    model: nn.Module,
    example_inputs: Any,
    settings: Settings,
    *,
    example_kwargs: dict[str, Any] | None = None,
    data: Data | None = None,
    job: WholeJob | None = None,
    events: Events | None = None,
) -> Pipeline:
    """Compress ``start``, which an earlier compression made of ``model``; returns the pipeline of it.

    Arguments and errors are those of ``Pipeline`` and its stages.
    """
    common: dict[str, Any] = {"example_kwargs": example_kwargs, "data": data, "events": events}
    first = Pipeline(model, example_inputs, settings, job=None if job is None else job.part(ORIGINAL), **common)
    try:
        first.trace()
        first.train()
        first.assess()
        base = base_of(first)
    finally:
        first.problem.close()
    first.compressed = start
    budgets = base_budgets(settings.budgets, base.costs)
    told = replace(settings, train_epochs=0, base=base, budgets=budgets)
    second = Pipeline(start, example_inputs, told, job=job, before=first, **common)
    second.run()
    return second


def describe_from(pipeline: Pipeline, before: Report, *, name: str) -> Report:
    """The report of a pipeline of ``run_from``; ``before`` is that of the network it began with."""
    report = describe_result(pipeline, name=name)
    report.attributes_changed = all_changed([before.attributes_changed, report.attributes_changed])
    report.blocks_removed = [*dict.fromkeys([*before.blocks_removed, *report.blocks_removed])]
    report.trained_epochs += before.trained_epochs
    return report
