"""From a finished pipeline to a ``Report``."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from torch import nn
from torch.nn.modules.conv import _ConvTransposeNd

from compressor.budget import Budget
from compressor.costs import REPORTED_COSTS, CostTerm
from compressor.pipeline.stages import Pipeline
from compressor.report import (
    Accuracy,
    AttributeChange,
    BlockShape,
    BudgetResult,
    Cell,
    ChoiceMade,
    Convolution,
    CostResult,
    LatencyPrediction,
    LeftAlone,
    PredictionError,
    Probabilities,
    Ranked,
    Report,
    Size,
    Verification,
    Width,
)
from compressor.report.block_table import outline
from compressor.report.records import installed_versions
from compressor.search.constraints.constraint import Constraint
from compressor.train import METRICS
from profilers.machine import machine_info

#: What of a history entry has a place of its own in the report.
_DRAWN = frozenset({"probabilities", "weight_sets"})


def describe_result(pipeline: Pipeline, *, name: str) -> Report:
    """Everything the stages found; latency, files and provenance are the caller's to add."""
    graph, settings = pipeline.graph, pipeline.settings
    report = Report(
        model=name,
        model_class=graph.model_class,
        search=settings.search,
        data=pipeline.data.name if pipeline.data is not None else None,
        input_shape=list(graph.input_shapes[0][1:]) if graph.input_shapes else [],
        seed=settings.seed,
        trained_epochs=pipeline.trained_epochs,
        versions=installed_versions(),
        machine=machine_info(),
    )
    base = settings.base

    def original(term: CostTerm) -> float:
        return term.original if base is None else base.costs.get(term.name, term.original)

    for budget, constraint in zip(settings.budgets, pipeline.problem.constraints, strict=True):
        term = constraint.term
        if budget.cost == "latency":
            report.budgets.append(_latency_budget(pipeline, budget, constraint))
            continue
        report.budgets.append(
            BudgetResult(budget.cost, term.unit, budget.text, original(term), constraint.limit, pipeline.reached(term))
        )
    for cost in REPORTED_COSTS:
        term = pipeline.problem.terms[cost]
        report.costs.append(CostResult(cost, term.unit, original(term), pipeline.reached(term)))
    report.tuning = pipeline.tuning
    report.latency_prediction = _prediction(pipeline)
    check = pipeline.check
    report.verification = Verification(check.error, check.tolerance, check.dtype, list(check.inputs), check.seen)
    if pipeline.data is not None:
        found = pipeline.scores
        values = (found.split, found.samples, found.before, found.after_search, found.after_finetune)
        if METRICS[found.metric].lower_is_better:
            report.prediction_error = PredictionError(*values, metric=found.metric)
        else:
            report.accuracy = Accuracy(*values, metric=found.metric)
    before, after = (_bytes(m) for m in (pipeline.model if base is None else base.model, pipeline.compressed))
    report.sizes.append(Size("Weights", before, after))
    report.fixed = [LeftAlone(f.place, f.operator, f"{f.reason} ({f.channels} channels)") for f in graph.fixed]
    report.fixed += [
        LeftAlone(graph.groups[g].name, "", f"{_units(pipeline, g)} units, as asked: {said}")
        for g, said in pipeline.problem.wanted.said.items()
    ]
    report.fixed += [
        LeftAlone(g, "", "left whole: removing its channels was not exact") for g in pipeline.problem.refused
    ]
    report.widths = _widths(pipeline)
    report.choices = [
        ChoiceMade(
            choice.name,
            choice.of,
            choice.alternatives[choice.current].name,
            choice.alternatives[choice.chosen(pipeline.decision.units)].name,
        )
        for choice in graph.choices
    ]
    report.operators = _operators(pipeline)
    report.probabilities = _probabilities(pipeline)
    report.weight_sets = _weight_sets(pipeline)
    report.ranking = [Ranked(**row) for row in pipeline.decision.ranking]
    report.blocks = _blocks(pipeline)
    report.cells = _cells(pipeline)
    removed = pipeline.architecture.blocks
    report.blocks_removed = [name for name in removed if base is None or name in base.blocks]
    report.attributes_changed = _attributes(pipeline)
    report.history = [_entry(pipeline, entry) for entry in pipeline.decision.history]
    return report


def _operators(pipeline: Pipeline) -> dict[str, Convolution]:
    """The convolutions at the sites where kernels were chosen, with what they were."""
    before, after = (dict(model.named_modules()) for model in (pipeline.model, pipeline.compressed))
    inputs = {operator.place: operator.spatial for operator in reversed(pipeline.graph.operators)}
    found = {}
    for choice in pipeline.graph.choices:
        old: Any = before.get(choice.name)
        new: Any = after.get(choice.name)
        if choice.of == "convolution" and all(hasattr(module, "dilation") for module in (old, new)):
            found[choice.name] = Convolution(
                list(new.kernel_size),
                list(new.dilation),
                list(old.kernel_size),
                list(old.dilation),
                list(inputs.get(choice.name, ())),
            )
    return found


def _probabilities(pipeline: Pipeline) -> list[Probabilities]:
    """What the search noted of each choice, step by step."""
    noted = [entry for entry in pipeline.decision.history if isinstance(entry.get("probabilities"), dict)]
    steps = [int(entry["step"]) for entry in noted]
    return [
        Probabilities(
            choice.name,
            [alternative.name for alternative in choice.alternatives],
            steps,
            [list(entry["probabilities"][choice.name]) for entry in noted],
        )
        for choice in pipeline.graph.choices
        if noted and choice.name in noted[0]["probabilities"]
    ]


def _weight_sets(pipeline: Pipeline) -> list[Probabilities]:
    """Which weights each configuration was trained with, step by step."""
    noted = [entry for entry in pipeline.decision.history if isinstance(entry.get("weight_sets"), dict)]
    steps = [int(entry["step"]) for entry in noted]
    found = []
    for name, shares in noted[0]["weight_sets"].items() if noted else ():
        rows = [list(entry["weight_sets"][name]) for entry in noted]
        found.append(Probabilities(name, [f"set {number + 1}" for number in range(len(shares))], steps, rows))
    return found


def _latency_budget(pipeline: Pipeline, budget: Budget, constraint: Constraint) -> BudgetResult:
    """In what the device said where it was asked, else in predictions."""
    term, held, base = constraint.term, pipeline.held, pipeline.settings.base
    known = {} if base is None else base.costs
    if held is None:
        original, reached = known.get("latency", term.original), pipeline.reached(term)
        return BudgetResult("latency", "ms", budget.text, original, constraint.limit, reached)
    last = held.rounds[held.best if held.best is not None else held.fastest]
    same = np.array_equal(pipeline.decision.units, pipeline.graph.all_units())
    unchanged = same and pipeline.decision.gates_or_all(pipeline.graph).all()
    # What an earlier round timed and this one left as it is was measured then.
    reached = last.original_ms if unchanged and not pipeline.held_before else last.measured_ms
    original = known.get("latency", last.original_ms)
    return BudgetResult("latency", "ms", budget.text, original, last.limit_ms, reached)


def _bytes(model: nn.Module) -> int:
    return sum(p.numel() * p.element_size() for p in model.parameters())


def _prediction(pipeline: Pipeline) -> LatencyPrediction | None:
    if pipeline.problem.device is None:
        return None
    found, held = pipeline.problem.device.prediction, pipeline.held
    return LatencyPrediction(
        target=found.target,
        mean_error=found.held_out.get("mean_error"),
        kendall_tau=found.held_out.get("kendall_tau"),
        networks=int(found.held_out.get("networks", 0)),
        points=found.known + found.measured,
        estimated=list(found.estimated),
        unmeasured=list(found.unmeasured),
        rounds=[{**vars(r), "used": r.used} for r in held.rounds] if held is not None else [],
        noise=found.noise,
    )


def _outline(pipeline: Pipeline) -> list[BlockShape]:
    return outline(pipeline.model, pipeline.graph, pipeline.architecture, pipeline.decision.units)


def _blocks(pipeline: Pipeline) -> list[BlockShape]:
    """The outline; of a grown network beside its base's, without what neither has."""
    rows, base = _outline(pipeline), pipeline.settings.base
    if base is None:
        return rows
    found = []
    for row in rows:
        old = base.blocks.get(row.name)
        if old is not None:
            kernel, resolution, width = old.kernel_before, old.resolution_before, old.width_before
            found.append(replace(row, kernel_before=kernel, resolution_before=resolution, width_before=width))
        elif not row.removed:
            found.append(replace(row, kernel_before=[], resolution_before=[], width_before=[]))
    return found


def _cells(pipeline: Pipeline) -> list[Cell]:
    """Operators side by side that are blocks, but for those of blocks that are gone."""
    graph = pipeline.graph
    kept = graph.gates(pipeline.decision.gates)
    return [
        Cell(
            [graph.blocks[b].name for b in each.blocks],
            [graph.blocks[b].name for b in each.blocks if kept[b]],
        )
        for each in graph.parallels
        if all(kept[b] for b in each.inside)
    ]


def _widths(pipeline: Pipeline) -> list[Width]:
    """Output channels of every weight with two or more axes, in the order of the module tree."""
    architecture = pipeline.architecture
    kinds = {product.place: product.kind for product in pipeline.graph.products}
    gone = tuple(f"{module}." for module in architecture.removed)
    modules, base = dict(pipeline.model.named_modules()), pipeline.settings.base
    of_base = {} if base is None else dict(base.model.named_parameters(remove_duplicate=False))
    rows = []
    for parameter in pipeline.graph.parameters.values():
        if parameter.is_buffer or len(parameter.shape) < 2 or not parameter.reached:
            continue
        layer = parameter.name.removesuffix(".weight")
        axis = 1 if isinstance(modules.get(layer), _ConvTransposeNd) else 0
        kept = 0 if parameter.name.startswith(gone) and gone else len(architecture.kept(parameter.name, axis))
        before = parameter.shape[axis]
        if base is not None:
            before = of_base[parameter.name].shape[axis] if parameter.name in of_base else 0
        if before or kept:
            rows.append(Width(layer, before, kept, kinds.get(layer, "")))
    return rows


def _attributes(pipeline: Pipeline) -> list[AttributeChange]:
    modules = dict(pipeline.model.named_modules())
    return [
        AttributeChange(module, attribute, _plain(getattr(modules[module], attribute, None)), value)
        for module, values in pipeline.architecture.attributes.items()
        for attribute, value in values.items()
    ]


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


def _entry(pipeline: Pipeline, entry: dict[str, Any]) -> dict[str, Any]:
    """A history entry with costs in their units (methods note fractions of the original)."""
    costs = {n: entry[n] * t.original for n, t in pipeline.problem.terms.items() if isinstance(entry.get(n), float)}
    rest = {k: v for k, v in entry.items() if k not in pipeline.problem.terms and k not in _DRAWN}
    return {**rest, "costs": costs}


def _units(pipeline: Pipeline, group: int) -> str:
    """``at least 16 of 32``."""
    total, wanted = len(pipeline.graph.groups[group]), pipeline.problem.wanted
    chosen = wanted.chosen.get(group)
    return f"{len(chosen)} of {total}" if chosen is not None else f"at least {wanted.least[group]} of {total}"
