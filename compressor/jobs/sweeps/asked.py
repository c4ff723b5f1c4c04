"""From what is asked for to a sweep. Nothing here imports torch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from compressor.errors import UsageError
from compressor.jobs.asked import Asked, completed, methods_in, require_model
from compressor.jobs.config import default_out
from compressor.jobs.sweeps.config import Combination, SweepConfig, combinations
from compressor.options import shown
from compressor.pipeline.defaults import DEFAULT_EPOCHS, default_sweep_search
from compressor.search import METHODS, get_method


def sweep_of(asked: Asked) -> SweepConfig:
    """The whole sweep. Raises ``UsageError`` for what is missing, or does not go together."""
    values = dict(asked.values)
    require_model(values)
    if values.get("start") is not None:
        raise UsageError("The points of a sweep begin where the sweep says; leave --start out.")
    budgets = _combinations(asked.budgets, paired=values.pop("zip", False))
    methods = _either(values, "search", "methods") or (default_sweep_search(values.get("data")),)
    seeds, targets = _either(values, "seed", "seeds") or (0,), _either(values, "target", "targets") or (None,)
    workers, cold, force = values.pop("workers", 1), values.pop("cold", False), values.pop("force", False)
    if (out := values.pop("out", None)) is None:
        out = default_out(values["model"], budgets[0][:0], "sweep")
    several = len(methods) > 1
    if several and (strange := next((name for name in methods if "," in name), None)) is not None:
        raise UsageError(f"--methods takes single methods, not {shown(strange)}.")
    own = asked.options_of(methods if several else methods_in(methods[0]))
    jobs = []
    for method in methods:
        mine = {**values, "search": method, "out": out, "seed": seeds[0], "target": targets[0]}
        mine["options"] = own.get(method, {}) if several else own
        if several and method in METHODS and get_method(method).ranked_by is None:
            mine["importance"] = None
        points = method in METHODS and get_method(method).points
        epochs = 0 if points else DEFAULT_EPOCHS
        jobs.append(completed(mine, budgets[0], finetune_epochs=epochs, bench_seconds=0.0))
    return SweepConfig(
        jobs=tuple(jobs),
        budgets=budgets,
        out=out,
        seeds=seeds,
        targets=targets,
        workers=workers,
        cold=cold,
        force=force,
    )


def _combinations(budgets: Mapping[str, Any], *, paired: bool) -> tuple[Combination, ...]:
    """All combinations; one budget of a cost is part of each."""
    fixed = {cost: text for cost, text in budgets.items() if isinstance(text, str)}
    swept = {cost: texts for cost, texts in budgets.items() if cost not in fixed}
    if not swept:
        raise UsageError("There are no budgets to sweep over; pass some, for example --budgets flops=25%,50%,75%.")
    count = max(len(each) for each in swept.values()) if paired else 1
    return combinations(swept | {cost: [text] * count for cost, text in fixed.items()}, paired=paired)


def _either(values: dict[str, Any], one: str, several: str) -> tuple[Any, ...]:
    """What was given by an option of the main job, or as a list by that of the sweep, taken out of ``values``."""
    single, listed = values.pop(one, None), values.pop(several, None)
    if single is not None and listed:
        raise UsageError(f"--{one} and --{several} are both given; keep one of them.")
    return tuple(listed) if listed else () if single is None else (single,)
