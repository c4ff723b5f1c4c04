"""Networks in a plane: how good each is against what it costs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from compressor.report import wording
from compressor.report.page.charts import coordinate
from compressor.report.page.markup import Markup, join, tag
from compressor.service.page.pictures.axes import Plane

#: What values of a unit are divided by on the axis, and how the axis says it.
SCALES = {
    "macs": (1e6, "million multiply-adds"),
    "params": (1e3, "thousand parameters"),
    "bytes": (1e3, "kB"),
    "operations": (1e6, "million operations"),
    "ms": (1.0, "ms"),
}


@dataclass(frozen=True)
class Dot:
    """A network: ``x`` in the unit of its cost, ``y`` its score. ``origin`` is where an arrow to it begins."""

    name: str
    x: float
    y: float
    colour: str = "accent"
    origin: tuple[float, float] | None = None
    label: bool = True


def scatter(
    dots: Sequence[Dot],
    *,
    unit: str,
    cost: str,
    metric: str,
    line: Sequence[tuple[float, float]] = (),
    limit: float | None = None,
) -> Markup:
    """The picture.

    Args:
        unit: of the costs, such as ``"macs"``; ``cost`` and ``metric`` are what the axes are called.
        line: points that a line goes through, such as those of a front.
        limit: a budget, drawn upright and dashed.
    """
    if not dots:
        return Markup("")
    divisor, said_unit = SCALES.get(unit, (1.0, unit))
    xs = [dot.x for dot in dots] + [dot.origin[0] for dot in dots if dot.origin] + ([] if limit is None else [limit])
    ys = [dot.y for dot in dots] + [dot.origin[1] for dot in dots if dot.origin]
    plane = Plane.around([x / divisor for x in xs], ys, width=720, height=340)

    def at(x: float, y: float) -> tuple[str, str]:
        return coordinate(plane.x(x / divisor)), coordinate(plane.y(y))

    parts = plane.grid(f"{cost}, {said_unit}" if said_unit else cost, metric)
    low, high = coordinate(plane.top), coordinate(plane.height - plane.bottom)
    if limit is not None:
        x, _ = at(limit, ys[0])
        parts.append(
            tag("line", x1=x, x2=x, y1=low, y2=high, class_="limit", stroke="var(--second)", stroke_dasharray="6 5")
        )
    if len(line) > 1:
        path = " ".join(",".join(at(*point)) for point in line)
        parts.append(tag("polyline", points=path, fill="none", stroke="var(--accent)", stroke_width=2))
    for dot in dots:
        if dot.origin is not None:
            (x1, y1), (x2, y2) = at(*dot.origin), at(dot.x, dot.y)
            parts.append(tag("line", x1=x1, y1=y1, x2=x2, y2=y2, stroke="var(--before)", stroke_dasharray="3 4"))
            parts.append(tag("circle", cx=x1, cy=y1, r=4, fill="var(--before)"))
    for dot in dots:
        x, y = at(dot.x, dot.y)
        said = f"{dot.name}: {dot.y:.4g} at {wording.amount(dot.x, unit)}"
        circle = tag("circle", tag("title", said), cx=x, cy=y, r=6, fill=f"var(--{dot.colour})", data_name=dot.name)
        parts.append(circle)
        if dot.label:
            right = plane.x(dot.x / divisor) > plane.width * 0.7
            placed = {"x": coordinate(plane.x(dot.x / divisor) + (-10 if right else 10)), "y": y, "dy": "-7"}
            short = dot.name if len(dot.name) <= 28 else f"{dot.name[:27]}…"
            parts.append(tag("text", short, class_="strong", text_anchor="end" if right else None, **placed))
    label = f"{metric} against {cost.lower()}: " + "; ".join(
        f"{dot.name} {dot.y:.4g} at {wording.amount(dot.x, unit)}" for dot in dots[:12]
    )
    return tag("svg", join(parts), viewBox=f"0 0 {plane.width} {plane.height}", role="img", aria_label=label)
