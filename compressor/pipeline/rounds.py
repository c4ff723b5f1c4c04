"""Several searches one after the other as one job, such as ``dash,figs``: kernels first, then widths on the result.

Each round is a ``Pipeline`` on what the one before left. Only the last meets the budgets and is fine-tuned; before it a
budget is what the network costs, if it asks for less. All are told of against the first original, and their edits make
one architecture, which applies to a fresh one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields, replace
from typing import TYPE_CHECKING, Any

from torch import nn

from compressor.errors import UsageError
from compressor.options import shown
from compressor.pipeline.events import Events
from compressor.pipeline.growth import base_budgets
from compressor.pipeline.settings import Base, Settings, method_options
from compressor.pipeline.stages import Pipeline
from compressor.pipeline.summary import describe_result
from compressor.report import AttributeChange, Report
from compressor.report.block_table import outline
from compressor.search import get_method
from compressor.search.names import names_of
from compressor.trim import plan

if TYPE_CHECKING:
    from compressor.data import Data
    from compressor.storage.shared_job import WholeJob


def round_settings(
    search: str,
    options: Mapping[str, Any] | None,
    *,
    epochs: int | None,
    importance: Any = None,
    **common: Any,
) -> tuple[Settings, ...]:
    """What each round is told. ``options`` of several methods are by method; ``common`` are fields of ``Settings``.

    Raises:
        UsageError: methods that cannot follow each other, or options that a method does not have.
    """
    names = names_of(search)
    by_method = {names[0]: options or {}} if len(names) == 1 else _by_method(names, options)
    batch_size = common.get("batch_size")
    found = []
    for name in names:
        ranks = get_method(name).ranked_by is not None or len(names) == 1
        own = method_options(
            name,
            by_method.get(name),
            epochs=epochs,
            batch_size=batch_size,
            importance=importance if ranks else None,
        )
        found.append(Settings(search=name, options=own, **common))
    if importance is not None and not any(settings.method.ranked_by for settings in found):
        raise UsageError(f"None of the searches ({', '.join(names)}) ranks by anything; leave importance out.")
    for settings in found if len(found) > 1 else ():
        if settings.config.growth > 1:
            raise UsageError(f"A network grows in a search alone, not in {search}; leave grow out.")
    early = [replace(settings, finetune_epochs=0, tune="none", at_least_original=True) for settings in found[:-1]]
    late = [replace(settings, train_epochs=0) if i else settings for i, settings in enumerate([*early, found[-1]])]
    return tuple(late)


def configuration(model: str, rounds: Sequence[Settings]) -> dict[str, Any]:
    """What all rounds are told, as JSON values, for whoever listens."""
    last = rounds[-1]
    budgets = {budget.cost: budget.text for budget in last.budgets}
    found: dict[str, Any] = {"model": model, "budgets": budgets, "search": ",".join(each.search for each in rounds)}
    for each in fields(last):
        if "kind" in each.metadata and each.name not in found and getattr(last, each.name) is not None:
            found[each.name] = _plain(getattr(last, each.name))
    return found | {each.search: _plain(each.options) for each in rounds}


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(name): _plain(each) for name, each in value.items()}
    if isinstance(value, (tuple, list)):
        return [_plain(each) for each in value]
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    return str(getattr(value, "text", None) or getattr(value, "__name__", None) or value)


def run_rounds(
    model: nn.Module,
    example_inputs: Any,
    rounds: Sequence[Settings],
    *,
    example_kwargs: dict[str, Any] | None = None,
    data: Data | None = None,
    job: WholeJob | None = None,
    events: Events | None = None,
) -> list[Pipeline]:
    """All rounds; returns their pipelines. Arguments and errors are those of ``Pipeline`` and its stages."""
    done: list[Pipeline] = []
    for index, settings in enumerate(rounds):
        last = index == len(rounds) - 1
        if done:
            base = base_of(done[0])
            settings = replace(settings, base=base, budgets=base_budgets(settings.budgets, base.costs))
        pipeline = Pipeline(
            done[-1].compressed if done else model,
            example_inputs,
            settings,
            example_kwargs=example_kwargs,
            data=data,
            job=job if last or job is None else job.part(f"round{index + 1}"),
            events=events,
            before=done[-1] if done else None,
        )
        done.append(pipeline)
        if len(rounds) > 1:
            pipeline.events.info(f"round {index + 1} of {len(rounds)}: {settings.search}")
        pipeline.run()
    return done


def describe_rounds(pipelines: Sequence[Pipeline], *, name: str) -> Report:
    """The report of all rounds: what the last reached, what each chose."""
    report = describe_result(pipelines[-1], name=name)
    if len(pipelines) > 1:
        every = [*(describe_result(pipeline, name=name) for pipeline in pipelines[:-1]), report]
        there = dict(pipelines[-1].compressed.named_modules())
        checks = [each.verification for each in every if each.verification is not None]
        report.search = ",".join(pipeline.settings.search for pipeline in pipelines)
        report.choices = [choice for each in every for choice in each.choices]
        report.operators = {
            name: op
            for each in every
            for name, op in each.operators.items()
            if hasattr(there.get(name), "dilation")  # a later round may have taken it out with its block
        }
        report.probabilities = [row for each in every for row in each.probabilities]
        report.weight_sets = [row for each in every for row in each.weight_sets]
        report.ranking = [row for each in every for row in each.ranking]
        report.attributes_changed = all_changed([each.attributes_changed for each in every])
        report.verification = max(checks, key=lambda check: check.error / check.tolerance, default=None)
        report.history = _following([each.history for each in every])
        report.trained_epochs = sum(pipeline.trained_epochs for pipeline in pipelines)
    return report


def base_of(first: Pipeline) -> Base:
    """The traced network of a round, which later ones are measured by."""
    problem = first.problem
    costs = {name: term.original for name, term in problem.terms.items()}
    if problem.device is not None:
        costs["latency"] = problem.device.original_ms
    whole = plan(first.model, first.graph, first.graph.all_units())
    return Base(first.model, costs, {row.name: row for row in outline(first.model, first.graph, whole)})


def all_changed(rounds: Sequence[Sequence[AttributeChange]]) -> list[AttributeChange]:
    """What all rounds changed, from what the first original has to what the result has."""
    found: dict[tuple[str, str], AttributeChange] = {}
    for change in (each for changes in rounds for each in changes):
        first = found.get((change.module, change.attribute), change)
        found[change.module, change.attribute] = replace(change, before=first.before)
    return [change for change in found.values() if change.before != change.after]


def _following(rounds: Sequence[Sequence[dict[str, Any]]]) -> list[dict[str, Any]]:
    """The histories of all rounds, as if their steps were those of one search."""
    found: list[dict[str, Any]] = []
    for history in rounds:
        done = found[-1]["step"] if found else 0
        found += [{**entry, "step": done + entry.get("step", index)} for index, entry in enumerate(history)]
    return found


def _by_method(names: Sequence[str], options: Mapping[str, Any] | None) -> Mapping[str, Mapping[str, Any]]:
    given = options or {}
    listed = ", ".join(names)
    if not isinstance(given, Mapping) or not all(isinstance(own, Mapping) for own in given.values()):
        raise UsageError(
            f"options of several searches are by method, such as {{{names[0]!r}: {{...}}}}, not {shown(given)}."
        )
    if strange := [name for name in given if name not in names]:
        raise UsageError(f"options are given for {strange[0]}, which is none of the searches chosen ({listed}).")
    return given
