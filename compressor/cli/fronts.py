"""The front of a sweep as a table for people to read."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from compressor.cli.tables import table


def front_text(document: Mapping[str, Any], count: int | None = None) -> str:
    """The table of points, from the document that ``front.json`` holds.

    Args:
        count: how many points there are to be, where that is known.
    """
    from compressor.jobs.sweeps.outcome import shown_score
    from compressor.report.wording import amount, percent

    originals = {front["target"]: front["original"] for front in document["fronts"]}
    costs = list(document["fronts"][0]["compared"]) if document["fronts"] else []
    metric, units = document["metric"], document["units"]
    rows = []
    for point in document["points"]:
        cells = [point["name"]]
        for cost in costs:
            reached, original = point["costs"][cost], originals[point.get("target")].get(cost)
            share = f" ({percent(reached / original)})" if original else ""
            cells.append(f"{amount(reached, units[cost])}{share}")
        cells.append("-" if point["score"] is None else shown_score(point["score"], metric))
        beaten = point["dominated_by"]
        cells.append(("" if point["met"] else "over budget") or ("" if beaten is None else f"beaten by {beaten}"))
        rows.append(cells)
    before = "" if document["before"] is None else f"; the original has {shown_score(document['before'], metric)}"
    of = "" if count is None else f" of {count}"
    return table(f"{document['model']}: {len(rows)}{of} points{before}", ["point", *costs, metric or "score", ""], rows)
