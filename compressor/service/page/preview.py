"""What the form shows before it submits: the costs of the original, and how far down each can be brought."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fastapi import FastAPI

from compressor.budget import parse_budget
from compressor.errors import CompressorError
from compressor.report import wording
from compressor.report.page.charts import coordinate
from compressor.report.page.markup import Markup, tag
from compressor.service.api.inspect import inspected
from compressor.service.recipes import Written


async def preview_of(app: FastAPI, recipe: Mapping[str, Any], project: str) -> dict[str, Any]:
    """What ``preview.html`` shows for a recipe of a project; where it cannot be told, why."""
    model = str(recipe.get("model", ""))
    try:
        found = await inspected(app, Written(recipe, ""), project)
    except CompressorError as error:
        return {"model": model, "wrong": str(error)}
    return shown(model, found, recipe.get("budgets") or {})


def shown(model: str, found: Mapping[str, Any], budgets: Mapping[str, Any]) -> dict[str, Any]:
    """The answer of the inspect service as a table: ``costs`` by name with ``original``, ``smallest`` and ``unit``."""
    rows = []
    for cost, values in found["costs"].items():
        original, smallest, unit = float(values["original"]), values.get("smallest"), str(values["unit"])
        said = budgets.get(cost)
        texts = said if isinstance(said, list) else [] if said is None else [said]
        limits = [parse_budget(cost, text).limit(original) for text in texts]
        rows.append(
            {
                "cost": cost,
                "original_text": wording.amount(original, unit),
                "smallest_text": "" if smallest is None else wording.amount(float(smallest), unit),
                "bar": _range(smallest, original, limits),
                "asked": ", ".join(wording.amount(limit, unit) for limit in limits),
                "reachable": None if not limits or smallest is None else min(limits) >= float(smallest),
            }
        )
    shape = f" {wording.TIMES} ".join(str(size) for size in found.get("input_shape") or [])
    note = "" if "latency" not in budgets else "How fast it can become is known once the target is measured."
    fixed = list(found.get("fixed") or [])
    return {"model": model, "wrong": "", "rows": rows, "input_shape": shape, "fixed": fixed, "note": note}


def _range(smallest: float | None, original: float, limits: list[float]) -> Markup:
    """A bar from the smallest cost to the original's, with an upright line at each budget."""
    if smallest is None or not original:
        return Markup("")
    low = min(1.0, max(0.0, float(smallest) / original))
    parts = [
        tag("title", f"from {low:.0%} to 100 % of the original"),
        tag("rect", width=1000, height=12, fill="var(--track)"),
        tag("rect", x=coordinate(low * 1000), width=coordinate((1 - low) * 1000), height=12, fill="var(--accent)"),
    ]
    for limit in limits:
        at = min(1.0, max(0.0, limit / original))
        parts.append(tag("rect", x=coordinate(max(0.0, at * 1000 - 3)), width=6, height=12, fill="var(--text)"))
    return tag("svg", *parts, class_="bar", viewBox="0 0 1000 12", preserveAspectRatio="none", role="img")
