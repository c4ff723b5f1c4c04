"""A sweep that was asked for from Python: its front, and the folder that it may be saved in."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from compressor.jobs.sweeps.outcome import front_document, point_row, write_front
from compressor.nn.copying import deep_copy
from compressor.pipeline.console import Console
from compressor.pipeline.events import Events
from compressor.pipeline.many import name_of
from compressor.pipeline.networks import Networks
from compressor.pipeline.reach import Combination
from compressor.pipeline.result import Result, result_of
from compressor.pipeline.sweeping import Swept, build_picked
from compressor.report.fronts import FrontPage, Mark
from compressor.search.front import Candidate, Front


def front_of(swept: Swept, combinations: Sequence[Combination], notes: Mapping[str, Any]) -> Front[Any]:
    """The front of what was found, which makes a ``Result`` of what is picked."""
    if swept.networks is not None:
        return _of_networks(swept, notes)
    done = [swept.pipelines[index] for index in range(len(combinations))]
    results = [result_of(pipeline, report) for pipeline, report in done]
    return _of_results(combinations, results, results, notes)


def save_sweep(
    folder: str | Path,
    front: Front[Any],
    combinations: Sequence[Combination],
    *,
    notes: Mapping[str, Any],
    data: str | None,
    networks: Networks | None,
) -> None:
    """Save the best network of each combination under the name of its budgets, and the front of these.

    Raises:
        CompressorError: the folder cannot be written. UnreachableBudgetError: the search left no network so small.
    """
    folder, results = Path(folder), list[Result]()
    assert front.make is not None
    for budgets in combinations:
        chosen = front.best(budgets) if networks is not None else _named(front, name_of(budgets))
        results.append(front.make(chosen, budgets))
        results[-1].save(folder / name_of(budgets))
    names = [name_of(budgets) for budgets in combinations]
    saved = _of_results(combinations, results, names, notes)
    row, report = point_row(results[0].report), results[0].report
    limits: dict[str, list[float]] = {}
    for result in results:
        for budget in result.report.budgets:
            limits.setdefault(budget.cost, []).append(budget.limit)
    page = FrontPage(
        model=report.model,
        data=data,
        methods=[str(notes["method"])],
        metric=row["metric"],
        lower_is_better=saved.lower_is_better,
        before=row["before"],
        original=saved.original,
        units=row["units"],
        costs=list(saved.compared),
        limits=limits,
        points=saved.points,
        tried=[] if networks is None else [Mark(r["name"], r["costs"], r["score"]) for r in networks.evaluated],
        settings={} if networks is None else {c.name: c.notes["settings"] for c in networks.front},
        history=[] if networks is None else networks.history,
    )
    write_front(folder, front_document(report.model, data, row, {None: saved}), page)


def _of_networks(swept: Swept, notes: Mapping[str, Any]) -> Front[Any]:
    """All networks that a search left; one is built when it is picked."""
    networks, pipeline = swept.networks, swept.pipeline
    assert networks is not None
    assert pipeline is not None
    given = networks.front

    def make(candidate: Candidate[Any], budgets: Combination) -> Result:
        only = replace(networks, front=given.only(candidate))
        events = Events(Console(quiet=True))
        fresh = deep_copy(pipeline.model)
        return result_of(*build_picked(only, fresh, pipeline.example, pipeline.settings, budgets, events=events))

    candidates = [replace(each, notes={**notes, **each.notes}) for each in given]
    return Front(candidates, given.original, lower_is_better=given.lower_is_better, compared=given.compared, make=make)


def _of_results(
    combinations: Sequence[Combination], results: Sequence[Result], found: Sequence[Any], notes: Mapping[str, Any]
) -> Front[Any]:
    """Finished networks, one for each combination of budgets; ``found`` is what candidates hold."""
    rows = [point_row(result.report) for result in results]
    candidates = []
    for budgets, row, each in zip(combinations, rows, found, strict=True):
        told = {**notes, "budgets": {budget.cost: budget.text for budget in budgets}, "met": row["met"]}
        told |= {"folder": each} if isinstance(each, str) else {}
        candidates.append(Candidate(name_of(budgets), row["costs"], row["score"], each, told))
    original = dict(rows[0]["original"])
    if "latency" in original:  # what it took when each network was timed differs a little
        original["latency"] = max(row["original"]["latency"] for row in rows)
    costs = [budget.cost for budget in combinations[0]]
    lower = rows[0]["lower_is_better"]
    return Front(candidates, original, lower_is_better=lower, compared=costs, make=lambda candidate, _: candidate.found)


def _named(front: Front[Any], name: str) -> Candidate[Any]:
    return next(candidate for candidate in front if candidate.name == name)
