"""Marks of things in a picture, and the same beside their names: two differ in colour, in shape, or in both."""

from __future__ import annotations

from dataclasses import dataclass

from compressor.report.page.charts import coordinate
from compressor.report.page.markup import Markup, tag

#: Corners around the middle, for marks that look as large as a circle of radius 1. None: the circle.
_SHAPES: dict[str, tuple[tuple[float, float], ...] | None] = {
    "circle": None,
    "square": ((-0.88, -0.88), (0.88, -0.88), (0.88, 0.88), (-0.88, 0.88)),
    "triangle": ((0.0, -1.3), (1.2, 0.85), (-1.2, 0.85)),
    "diamond": ((0.0, -1.3), (1.3, 0.0), (0.0, 1.3), (-1.3, 0.0)),
}
_COLOURS = ("accent", "second", "third", "fourth", "good", "bad", "neutral")
_SIDE, _RADIUS = 16, 6.0


@dataclass(frozen=True)
class Mark:
    """How a thing looks: a colour of the style sheet, and a shape."""

    colour: str = "accent"
    shape: str = "circle"

    def draw(self, x: float, y: float, *, said: str = "") -> Markup:
        """The mark in a picture, with what a pointer or a reader is told."""
        told = tag("title", said) if said else ""
        fill = f"var(--{self.colour})"
        corners = _SHAPES[self.shape]
        if corners is None:
            return tag("circle", told, cx=coordinate(x), cy=coordinate(y), r=coordinate(_RADIUS), fill=fill)
        points = " ".join(f"{coordinate(x + _RADIUS * a)},{coordinate(y + _RADIUS * b)}" for a, b in corners)
        return tag("polygon", told, points=points, fill=fill)

    def key(self) -> Markup:
        """The mark alone, to stand before a name."""
        middle = _SIDE / 2
        return tag("svg", self.draw(middle, middle), class_="key", viewBox=f"0 0 {_SIDE} {_SIDE}", aria_hidden="true")


USUAL = Mark()


def mark_of(index: int) -> Mark:
    """One of 28, of which those after each other differ in colour and in shape."""
    shapes = list(_SHAPES)
    return Mark(_COLOURS[index % len(_COLOURS)], shapes[index % len(shapes)])
