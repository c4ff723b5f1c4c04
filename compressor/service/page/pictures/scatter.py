"""Networks in a plane: how good each is against what it costs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product

from compressor.report import wording
from compressor.report.page.charts import coordinate
from compressor.report.page.markup import Markup, join, tag
from compressor.report.page.plane import Plane
from compressor.service.page.formats import score_text
from compressor.service.page.pictures.marks import USUAL, Mark

#: What values of a unit are divided by on the axis, and how the axis says it.
SCALES = {
    "macs": (1e6, "millions"),
    "params": (1e3, "thousands"),
    "bytes": (1e3, "kB"),
    "operations": (1e6, "millions"),
    "ms": (1.0, "ms"),
}
_SIGN, _LINE, _HIGH, _REACH = 7.4, 17.0, 12.0, 6.0
"""About: the width of a sign, how far below a mark its name stands, the height of letters, how far a mark reaches."""


@dataclass(frozen=True)
class Dot:
    """A network: ``x`` in the unit of its cost, ``y`` its score. A line leads to it from ``origin``."""

    name: str
    x: float
    y: float
    mark: Mark = USUAL
    origin: tuple[float, float] | None = None
    label: bool = True


@dataclass(frozen=True)
class Scatter:
    """A picture of dots.

    Attributes:
        unit: of the costs, such as ``"macs"``; ``cost`` and ``metric`` are what the axes are called.
        line: points that a line goes through, such as those of a front.
        limit: a budget, drawn upright and dashed.
    """

    dots: Sequence[Dot]
    unit: str
    cost: str
    metric: str
    line: Sequence[tuple[float, float]] = ()
    limit: float | None = None

    def draw(self) -> Markup:
        """The picture for wide screens and for narrow ones, of which the style sheet shows one; empty without dots."""
        if not self.dots:
            return Markup("")
        return join(
            [
                tag("div", self._picture(860, 340), class_="when-wide"),
                tag("div", self._picture(350, 290), class_="when-narrow"),
            ]
        )

    def _picture(self, width: int, height: int) -> Markup:
        divisor, said_unit = SCALES.get(self.unit, (1.0, self.unit))
        origins = [dot.origin for dot in self.dots if dot.origin is not None]
        xs = [dot.x for dot in self.dots] + [x for x, _ in origins] + ([] if self.limit is None else [self.limit])
        ys = [dot.y for dot in self.dots] + [y for _, y in origins]
        plane = Plane.around([x / divisor for x in xs], ys, width=width, height=height)

        def at(x: float, y: float) -> tuple[float, float]:
            return plane.x(x / divisor), plane.y(y)

        parts = plane.grid(f"{self.cost}, {said_unit}" if said_unit else self.cost, self.metric)
        if self.limit is not None:
            x, _ = at(self.limit, ys[0])
            upright = {"x1": coordinate(x), "x2": coordinate(x), "y1": plane.top, "y2": height - plane.bottom}
            parts.append(tag("line", **upright, stroke="var(--second)", stroke_width=1.5, stroke_dasharray="6 5"))
        if len(self.line) > 1:
            path = " ".join(",".join(map(coordinate, at(*point))) for point in self.line)
            parts.append(tag("polyline", points=path, fill="none", stroke="var(--accent)", stroke_width=2))
        for dot in self.dots:
            if dot.origin is not None:
                (x1, y1), (x2, y2) = at(*dot.origin), at(dot.x, dot.y)
                ends = dict(zip(("x1", "y1", "x2", "y2"), map(coordinate, (x1, y1, x2, y2)), strict=True))
                parts.append(tag("line", **ends, stroke="var(--before)", stroke_dasharray="3 4"))
                parts.append(tag("circle", cx=coordinate(x1), cy=coordinate(y1), r=4, fill="var(--before)"))
        parts += [dot.mark.draw(*at(dot.x, dot.y), said=self._told(dot)) for dot in self.dots]
        marks = [at(dot.x, dot.y) for dot in self.dots if dot.label]
        parts += _labels([(dot.name, *at(dot.x, dot.y)) for dot in self.dots if dot.label], marks, plane)
        return tag("svg", join(parts), viewBox=f"0 0 {width} {height}", role="img", aria_label=self._said())

    def _told(self, dot: Dot) -> str:
        return f"{dot.name}: {score_text(dot.y, self.metric)} at {wording.amount(dot.x, self.unit)}"

    def _said(self) -> str:
        listed = [
            f"{dot.name} {score_text(dot.y, self.metric)} at {wording.amount(dot.x, self.unit)}"
            for dot in self.dots[:12]
        ]
        return f"{self.metric} against {self.cost.lower()}: {'; '.join(listed)}"


def _labels(
    names: Sequence[tuple[str, float, float]], marks: Sequence[tuple[float, float]], plane: Plane
) -> list[Markup]:
    """Names beside their marks, where they stand on no other name or mark; left out where there is no such room, since
    a name further away is read as that of another mark."""
    taken = [(x - _REACH, x + _REACH, y - _REACH, y + _REACH) for x, y in marks]
    parts = []
    most = int(plane.width * 0.55 / _SIGN)
    for name, x, y in names:
        short = name if len(name) <= most else f"{name[: most - 1]}…"
        wide = len(short) * _SIGN
        for base, left_of in product((y + _LINE, y - 8), (False, True)):
            low = x - 9 - wide if left_of else x + 9
            box = (low, low + wide, base - _HIGH, base + 3)
            inside = plane.left <= low and box[1] <= plane.width - plane.right and box[2] > plane.top - _HIGH
            if inside and base <= plane.height - plane.bottom - 2 and not any(_meet(box, each) for each in taken):
                taken.append(box)
                anchor = "end" if left_of else None
                start = coordinate(x - 9 if left_of else x + 9)
                parts.append(tag("text", short, class_="strong", text_anchor=anchor, x=start, y=coordinate(base)))
                break
    return parts


def _meet(one: tuple[float, float, float, float], other: tuple[float, float, float, float]) -> bool:
    """Whether two boxes (left, right, top, bottom) have a place in common."""
    return one[0] < other[1] and other[0] < one[1] and one[2] < other[3] and other[2] < one[3]
