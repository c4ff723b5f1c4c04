"""The page of a sweep: score against each cost, and the table of its points. Also the picture alone."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from compressor.report import wording
from compressor.report.fronts import FrontPage
from compressor.report.page import space
from compressor.report.page.charts import WIDTH, coordinate
from compressor.report.page.html import whole_page
from compressor.report.page.markup import Markup, join, legend, section, table, tag
from compressor.report.page.plane import Plane
from compressor.report.page.style import CSS

_HEIGHT = 340
#: Networks whose settings are shown.
_MOST = 24
_DIVISORS = {"macs": (1e6, "MMACs"), "params": (1e3, "thousand parameters"), "bytes": (1e3, "kB"), "ms": (1.0, "ms")}


def render_front(page: FrontPage) -> str:
    """The page as one self-contained HTML document."""
    beaten = [row["name"] for row in page.points if row["dominated_by"] is not None]
    best = len(page.points) - len(beaten)
    text = f"{len(page.points)} network{'' if len(page.points) == 1 else 's'} for {', '.join(map(_cost, page.costs))}"
    if page.points and page.points[0]["score"] is None:
        detail = "Nothing was evaluated: without data there is no score."
    elif beaten:
        detail = f"{best} are not beaten by another in both score and cost."
    else:
        detail = "No network is beaten by another in both score and cost."
    notes = [f"Not done yet: {', '.join(page.missing)}. Run the same command again."] if page.missing else []
    notes += [f"{name} failed: {why}" for name, why in page.failed.items()]
    facts = [f"searched with {', '.join(page.methods)}", *([f"trained on {page.data}"] if page.data else [])]
    body = join(
        [
            tag("p", "Sweep", class_="overline"),
            tag("h1", page.model),
            tag("p", " · ".join(facts), class_="sub"),
            tag("div", tag("strong", text), tag("p", detail), class_="verdict neutral"),
            tag("ul", join(tag("li", note) for note in notes), class_="notes") if notes else "",
            *(_chart_section(page, cost) for cost in page.costs),
            _points(page),
            _settings(page),
            space.space(page.history),
        ]
    )
    return whole_page(f"{page.model}: {text}", body)


def front_svg(page: FrontPage, cost: str) -> str:
    """The chart of one cost as an SVG file of its own, light and dark."""
    chart = _chart(page, cost)
    colours = "".join(re.findall(r":root \{.*?\n\}|@media \(prefers-color-scheme: dark\) \{.*?\n\}", CSS, re.DOTALL))
    texts = "svg{background:var(--bg);font-family:sans-serif} text{fill:var(--muted);font:13px sans-serif}"
    opened = chart.replace("<svg ", f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{_HEIGHT}" ', 1)
    return opened.replace(">", f"><style>{colours}{texts}</style>", 1) + "\n"


def _cost(name: str) -> str:
    return wording.cost_name(name).lower()


def _scale(page: FrontPage, cost: str) -> tuple[float, str]:
    """What values are divided by on the axis, and the unit then."""
    return _DIVISORS.get(page.units.get(cost, ""), (1.0, page.units.get(cost, "")))


def _chart_section(page: FrontPage, cost: str) -> Markup:
    if not any(row["score"] is not None for row in page.points):
        return Markup("")
    keys = [("accent", "points that none beats"), ("third", "points that another beats")]
    keys += [("before", "tried by the search")] if page.tried else []
    asked = [("second", "budgets asked for")]
    lead = f"{page.metric[:1].upper()}{page.metric[1:]}{' (lower is better)' if page.lower_is_better else ''} against "
    lead += f"{_cost(cost)}."
    if page.tried:
        lead += " Networks that the search tried are scored on held-out samples in the weights that they share."
    return section(f"Score and {_cost(cost)}", legend(keys, dashed=asked), tag("figure", _chart(page, cost)), lead=lead)


def _chart(page: FrontPage, cost: str) -> Markup:
    divisor, unit = _scale(page, cost)
    points = [row for row in page.points if row["score"] is not None and cost in row["costs"]]
    tried = [mark for mark in page.tried if mark.score is not None and cost in mark.costs]
    costs = [row["costs"][cost] for row in points] + [mark.costs[cost] for mark in tried] + page.limits.get(cost, [])
    scores = [float(row["score"]) for row in points] + [float(mark.score or 0.0) for mark in tried]
    plane = Plane.around([each / divisor for each in costs], scores, width=WIDTH, height=_HEIGHT)

    def x(value: float) -> float:
        return plane.x(value / divisor)

    parts = plane.grid(unit, page.metric)
    for limit in dict.fromkeys(page.limits.get(cost, [])):
        at = coordinate(x(limit))
        title = tag("title", f"budget: {wording.amount(limit, page.units.get(cost, ''))}")
        line = {"stroke": "var(--second)", "stroke_width": 1.5, "stroke_dasharray": "6 5"}
        parts.append(tag("line", title, x1=at, x2=at, y1=plane.top, y2=plane.height - plane.bottom, **line))
    for mark in tried:
        said = f"{mark.name}: {mark.score:.4g} at {wording.amount(mark.costs[cost], page.units.get(cost, ''))}"
        parts.append(_dot(x(mark.costs[cost]), plane.y(float(mark.score or 0.0)), said, "before", 3, 0.55))
    best = sorted((r["costs"][cost], float(r["score"])) for r in points if r["dominated_by"] is None)
    path = " ".join(f"{coordinate(x(a))},{coordinate(plane.y(b))}" for a, b in best)
    parts.append(tag("polyline", points=path, fill="none", stroke="var(--accent)", stroke_width=2))
    for row in points:
        said = f"{row['name']}: {row['score']:.4g} at {wording.amount(row['costs'][cost], page.units.get(cost, ''))}"
        beaten = row["dominated_by"]
        said += f"; beaten by {beaten}" if beaten is not None else ""
        colour = "third" if beaten is not None else "accent"
        parts.append(_dot(x(row["costs"][cost]), plane.y(float(row["score"])), said, colour, 6, 1.0))
    label = f"{page.metric} against {_cost(cost)}"
    return tag("svg", join(parts), viewBox=f"0 0 {WIDTH} {_HEIGHT}", role="img", aria_label=label)


def _dot(x: float, y: float, said: str, colour: str, radius: float, opacity: float) -> Markup:
    return tag(
        "circle",
        tag("title", said),
        cx=coordinate(x),
        cy=coordinate(y),
        r=radius,
        fill=f"var(--{colour})",
        opacity=opacity if opacity < 1 else None,
    )


def _points(page: FrontPage) -> Markup:
    """Every point, in the order of the sweep."""
    rows: list[tuple[object, ...]] = []
    several = len(page.methods) > 1
    seeds = len({row.get("seed") for row in page.points}) > 1
    targets = len({row.get("target") for row in page.points}) > 1
    for row in page.points:
        cells: list[object] = [tag("code", row["name"])]
        cells += [row.get("method", "")] if several else []
        cells += [str(row.get("seed", ""))] if seeds else []
        cells += [row.get("target") or ""] if targets else []
        for cost in page.costs:
            reached, original = row["costs"][cost], page.original.get(cost, 0.0)
            share = wording.of_original(reached, original)
            cells += [
                wording.amount(reached, page.units.get(cost, "")),
                "" if share is None else wording.percent(share),
            ]
        cells.append("" if row["score"] is None else _score(page, row["score"]))
        beaten = row["dominated_by"]
        met = "" if row.get("met", True) else tag("span", "over budget", class_="mark bad")
        cells.append(met or ("" if beaten is None else join(["beaten by ", tag("code", beaten)])))
        cells.append(tag("a", "report", href=f"{row['folder']}/report.html") if "folder" in row else "")
        rows.append(tuple(cells))
    extra = [name for name, shown in (("Method", several), ("Seed", seeds), ("Target", targets)) if shown]
    head = ["Point", *extra]
    for cost in page.costs:
        head += [wording.cost_name(cost), "Left"]
    head += [f"{page.metric[:1].upper()}{page.metric[1:]}" or "Score", "", ""]
    kinds = "t" + "t" * len(extra) + "nn" * len(page.costs) + "ntt"
    before = "" if page.before is None else f" The original has {_score(page, page.before)}."
    lead = f"What each point reached, and which other is no worse in anything and better in something.{before}"
    return section("Points", table(head, rows, kinds=kinds, dense=len(rows) > 16), lead=lead) if rows else Markup("")


def _score(page: FrontPage, value: float) -> str:
    return f"{value:.4g}" if page.lower_is_better else wording.percent(value, 2)


def _settings(page: FrontPage) -> Markup:
    """What the networks of a search's front keep, dimension by dimension."""
    known = {name: _flat(found) for name, found in page.settings.items() if found}
    if not known:
        return Markup("")
    dimensions = list(dict.fromkeys(dimension for found in known.values() for dimension in found))
    shown = list(known.items())[:_MOST]
    rows = [(kind, tag("code", d), *(_value(found.get((kind, d))) for _, found in shown)) for kind, d in dimensions]
    head = ("Kind", "Dimension", *(name for name, _ in shown))
    body = table(head, rows, kinds="tt" + "n" * len(shown), dense=True)
    title = f"{len(dimensions)} dimension{'s' * (len(dimensions) > 1)} of {len(shown)} network{'s' * (len(shown) > 1)}"
    return section(
        "What the networks keep",
        tag("details", tag("summary", title), body),
        lead="The networks that no other beat in the search, cheapest first.",
    )


def _flat(settings: Mapping[str, Any]) -> dict[tuple[str, str], Any]:
    """Settings by kind and name; those without a kind have none."""
    found: dict[tuple[str, str], Any] = {}
    for name, value in settings.items():
        if isinstance(value, Mapping):
            found |= {(name, inner): each for inner, each in value.items()}
        else:
            found["", name] = value
    return found


def _value(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.3g}"
    if isinstance(value, (int, str)):
        return str(value)
    if isinstance(value, Sequence):
        return ", ".join(_value(each) for each in value)
    return json.dumps(value)
