"""The figure of ``search_space``: test accuracy over multiply-adds, a panel for each aggregator, as one SVG file."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.accuracy.search_space_table import Cloud
from compressor.report.page.charts import coordinate, nice_ticks
from compressor.report.page.markup import Markup, join, tag

WIDE, TALL, LEFT, RIGHT, TOP, BOTTOM = 460, 340, 46, 12, 46, 44
TITLES = {"concat": "concat aggregator", "add": "additive aggregator"}
STYLES = {
    "random": ("#b8860b", "random subnets"),
    "uniform": ("#5b6573", "uniform width"),
    "figs": ("#c0392b", "FiGS"),
    "retrained": ("#2464b4", "FiGS, retrained"),
}
"""Colour and name by kind, in the order in which they are drawn."""

Row = Mapping[str, Any]


class _Panel:
    """Where points lie in one panel; the first axis is logarithmic."""

    def __init__(self, rows: Sequence[Row], left: float) -> None:
        macs = [row["macs"] / 1e6 for row in rows]
        self.low, self.high = 0.85 * min(macs), 1.15 * max(macs)
        accuracies = [100 * row["accuracy"] for row in rows]
        self.ys = nice_ticks(min(accuracies) - 0.5, max(accuracies) + 0.5, 6)
        self.left = left

    def x(self, macs: float) -> float:
        share = math.log(macs / 1e6 / self.low) / math.log(self.high / self.low)
        return self.left + LEFT + share * (WIDE - LEFT - RIGHT)

    def y(self, accuracy: float) -> float:
        share = (100 * accuracy - self.ys[0]) / (self.ys[-1] - self.ys[0])
        return TALL - BOTTOM - share * (TALL - TOP - BOTTOM)

    def frame(self, title: str) -> list[Markup]:
        """Title, ticks and names of the axes."""
        start, end, floor = self.left + LEFT, self.left + WIDE - RIGHT, TALL - BOTTOM
        parts = [tag("text", title, x=start, y=TOP - 10, font_weight="bold")]
        for tick in self.ys:
            at = coordinate(self.y(tick / 100))
            parts.append(tag("line", x1=start, x2=end, y1=at, y2=at, stroke="#dde1e6"))
            parts.append(tag("text", f"{tick:g}", x=start - 6, y=coordinate(self.y(tick / 100) + 4), text_anchor="end"))
        for tick in (t for t in (0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0) if self.low <= t <= self.high):
            at = coordinate(self.x(tick * 1e6))
            parts.append(tag("line", x1=at, x2=at, y1=floor, y2=floor + 4, stroke="#5b6573"))
            parts.append(tag("text", f"{tick:g}", x=at, y=floor + 18, text_anchor="middle"))
        parts.append(tag("text", "million multiply-adds", x=(start + end) / 2, y=TALL - 8, text_anchor="middle"))
        return parts


def _points(panel: _Panel, rows: Sequence[Row]) -> list[Markup]:
    parts = []
    for kind, (colour, name) in STYLES.items():
        for row in (row for row in rows if row["kind"] == kind):
            said = f"{name}: {100 * row['accuracy']:.1f} % at {row['macs'] / 1e6:.3f} M"
            look = {"fill": "none", "stroke": colour, "stroke_width": 1.5} if kind == "random" else {"fill": colour}
            x, y = coordinate(panel.x(row["macs"])), coordinate(panel.y(row["accuracy"]))
            parts.append(tag("circle", tag("title", said), cx=x, cy=y, r=4, **look))
    return parts


def _line(panel: _Panel, rows: Sequence[Row]) -> list[Markup]:
    """The line through the random subnets."""
    cloud = Cloud.of([row for row in rows if row["kind"] == "random"])
    if cloud is None:
        return []
    ends = [f(row["macs"] for row in cloud.rows) for f in (min, max)]
    (x1, y1), (x2, y2) = ((panel.x(m), panel.y(cloud.slope * math.log(m) + cloud.offset)) for m in ends)
    places = {"x1": coordinate(x1), "y1": coordinate(y1), "x2": coordinate(x2), "y2": coordinate(y2)}
    return [tag("line", stroke=STYLES["random"][0], stroke_dasharray="5 4", **places)]


def _legend() -> list[Markup]:
    parts = []
    x = LEFT
    for kind, (colour, name) in STYLES.items():
        look = {"fill": "none", "stroke": colour, "stroke_width": 1.5} if kind == "random" else {"fill": colour}
        parts += [tag("circle", cx=x, cy=14, r=4, **look), tag("text", name, x=x + 10, y=18)]
        x += 28 + 6 * len(name)
    return parts


def write(rows: Sequence[Row], path: Path) -> None:
    """Write the figure to ``path``. Panels are those of the aggregators that ``rows`` have."""
    names = [name for name in TITLES if any(row["aggregator"] == name for row in rows)]
    parts: list[Markup] = [tag("rect", width="100%", height="100%", fill="#ffffff"), *_legend()]
    for i, name in enumerate(names):
        own = [row for row in rows if row["aggregator"] == name]
        panel = _Panel(own, i * WIDE)
        parts += [*panel.frame(TITLES[name]), *_line(panel, own), *_points(panel, own)]
    text = "svg{font-family:sans-serif;font-size:12px} text{fill:#23282f}"
    body = tag(
        "svg",
        tag("style", text),
        tag("title", "Test accuracy over multiply-adds in the One-Shot space"),
        join(parts),
        xmlns="http://www.w3.org/2000/svg",
        width=max(1, len(names)) * WIDE,
        height=TALL,
    )
    path.write_text(str(body) + "\n", encoding="utf-8")
