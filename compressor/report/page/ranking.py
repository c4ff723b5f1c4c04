"""Where to pool: the ranking, its front of score and cost, and the configuration taken as a picture over depth."""

from __future__ import annotations

from compressor.report.page.charts import WIDTH, coordinate
from compressor.report.page.markup import Markup, join, legend, section, table, tag
from compressor.report.page.plane import Plane
from compressor.report.ranking import Ranked, front
from compressor.report.records import Report

#: Rows that are shown; all are in report.json.
ROWS = 40
_COST = "flops"


def ranking(report: Report) -> Markup:
    """Every network that was ranked, the best first."""
    if not report.ranking:
        return Markup("")
    best = {each.name for each in front(report.ranking, _COST)}
    costs = [name for name in ("flops", "memory", "latency") if name in report.ranking[0].costs]
    units = {"flops": "MMACs", "memory": "kB", "latency": "ms"}
    scale = {"flops": 1e6, "memory": 1e3, "latency": 1.0}
    rows: list[tuple[object, ...]] = []
    for place, each in enumerate(report.ranking[:ROWS], 1):
        said = tag("span", "chosen", class_="mark good") if each.chosen else ""
        rows.append(
            (
                str(place),
                each.name,
                "" if each.score is None else f"{each.score:.4f}",
                f"{each.average:.4f}",
                str(each.weight_set + 1),
                *(f"{each.costs[name] / scale[name]:.4g}" for name in costs),
                "yes" if each.name in best else "",
                said,
            )
        )
    metric = next((each.metric for each in report.ranking if each.metric), "score")
    head = ("", "Layers per resolution", metric, "Average", "Weights", *(units[name] for name in costs), "Front", "")
    body = table(head, rows, kinds=f"ntnnn{'n' * len(costs)}tt", dense=len(rows) > 12)
    if len(rows) > 12:
        body = tag("details", tag("summary", f"{len(rows)} of {len(report.ranking)} configurations"), body)
    scored = [each for each in report.ranking if each.score is not None]
    taken = next((each for each in report.ranking if each.chosen), None)
    return section(
        "Where to pool",
        _depth(taken) if taken is not None else "",
        _scatter(scored, best, metric) if len(scored) > 1 else "",
        body,
        lead="A configuration says how many layers there are at each resolution. All share weights, so scores rank "
        "them and are below what a network reaches that is trained by itself.",
    )


def _layers(each: Ranked) -> list[int]:
    return [int(part) for part in each.name.strip("[]").split(",")]


def _depth(taken: Ranked) -> Markup:
    """A step for each resolution, as wide as it has layers and half as high as the one before."""
    try:
        counts = _layers(taken)
    except ValueError:
        return Markup("")
    height, left, unit = 96, 0.0, WIDTH / sum(counts)
    parts = []
    for level, count in enumerate(counts):
        high = 64 / 2**level
        for _ in range(count):
            parts.append(
                tag(
                    "rect",
                    x=coordinate(left + 1.5),
                    y=coordinate(70 - high),
                    width=coordinate(max(1.0, unit - 3)),
                    height=coordinate(high),
                    fill="var(--accent)",
                )
            )
            left += unit
        middle = coordinate(left - unit * count / 2)
        said = f"{count} layer{'s' if count > 1 else ''} at 1/{2**level}" if level else f"{count} at full resolution"
        parts.append(tag("text", said, x=middle, y=height - 6, text_anchor="middle"))
    name = f"{taken.name}: layers per resolution, from input to output"
    return tag("svg", tag("title", name), join(parts), viewBox=f"0 0 {WIDTH} {height}", role="img")


def _scatter(scored: list[Ranked], best: set[str], metric: str) -> Markup:
    """Score against multiply-adds; the front is drawn as a line."""
    points = [(each.costs[_COST] / 1e6, float(each.score or 0.0), each) for each in scored]
    plane = Plane.around([p[0] for p in points], [p[1] for p in points], width=WIDTH)
    parts = plane.grid("MMACs", metric)
    path = sorted((a, b) for a, b, each in points if each.name in best)
    line = " ".join(f"{coordinate(plane.x(a))},{coordinate(plane.y(b))}" for a, b in path)
    parts.append(tag("polyline", points=line, fill="none", stroke="var(--second)", stroke_width=2))
    for a, b, each in points:
        fill = "accent" if each.chosen else "second" if each.name in best else "before"
        parts.append(
            tag(
                "circle",
                tag("title", f"{each.name}: {b:.4f} at {a:.4g} MMACs"),
                cx=coordinate(plane.x(a)),
                cy=coordinate(plane.y(b)),
                r=7 if each.chosen else 4.5,
                fill=f"var(--{fill})",
            )
        )
    chart = tag(
        "svg",
        join(parts),
        viewBox=f"0 0 {WIDTH} {plane.height}",
        role="img",
        aria_label=f"{metric} against multiply-adds",
    )
    keys = [("accent", "taken"), ("second", "front"), ("before", "others")]
    return join([chart, legend(keys)])
