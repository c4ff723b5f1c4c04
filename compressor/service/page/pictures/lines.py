"""A curve over steps as a picture; ``curves.js`` draws over it where scripts run."""

from __future__ import annotations

from compressor.budget import OF_LIMIT
from compressor.report.page.charts import coordinate
from compressor.report.page.markup import Markup, join, tag
from compressor.report.page.plane import Plane
from compressor.report.wording import cost_name
from compressor.service.page.formats import number
from compressor.service.page.story.curves import Curve


def curve_label(curve: Curve) -> str:
    """What a curve's values are, as one reads it."""
    cost = curve.quantity.removesuffix(OF_LIMIT)
    return curve.quantity if cost == curve.quantity else f"{cost_name(cost)} / budget"


def curve_title(curve: Curve) -> str:
    """What a curve shows, and where: of a cost, that its budget is at 1."""
    cost = curve.quantity.removesuffix(OF_LIMIT)
    if cost == curve.quantity:
        return f"{curve.quantity} in {curve.stage}"
    return f"Expected {cost_name(cost).lower()} in {curve.stage}, as a share of the budget"


def curve_picture(curve: Curve, colour: str = "accent") -> Markup:
    """One curve, steps to the right. Empty for a curve without points."""
    if not curve.steps:
        return Markup("")
    plane = Plane.around(curve.steps, curve.values, width=460, height=230)
    points = " ".join(
        f"{coordinate(plane.x(step))},{coordinate(plane.y(value))}"
        for step, value in zip(curve.steps, curve.values, strict=True)
    )
    line = tag("polyline", points=points, fill="none", stroke=f"var(--{colour})", stroke_width=2)
    end = tag(
        "circle",
        cx=coordinate(plane.x(curve.steps[-1])),
        cy=coordinate(plane.y(curve.values[-1])),
        r=3.5,
        fill=f"var(--{colour})",
    )
    said = f"{curve_title(curve)}: {number(curve.values[0])} at step {number(curve.steps[0])}, "
    said += f"{number(curve.values[-1])} at step {number(curve.steps[-1])}"
    parts = [tag("title", said), *plane.grid("step", curve_label(curve)), line, end]
    return tag("svg", join(parts), viewBox=f"0 0 {plane.width} {plane.height}", role="img", aria_label=said)
