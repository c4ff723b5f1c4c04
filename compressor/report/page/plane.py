"""A plane to draw in: round ticks, grid lines and labels along both axes."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from compressor.report.page.charts import coordinate, nice_ticks
from compressor.report.page.markup import Markup, tag


@dataclass(frozen=True)
class Plane:
    """Where values lie in a picture of ``width`` times ``height``; all of ``xs`` and ``ys`` fit in."""

    width: int
    height: int
    x_ticks: tuple[float, ...]
    y_ticks: tuple[float, ...]
    left: int = 62
    right: int = 18
    top: int = 12
    bottom: int = 44

    @staticmethod
    def around(xs: Iterable[float], ys: Iterable[float], *, width: int = 720, height: int = 300) -> Plane:
        """The smallest plane with round ends that holds all values; with none the unit square."""
        xs, ys = list(xs) or [0.0, 1.0], list(ys) or [0.0, 1.0]
        return Plane(width, height, tuple(nice_ticks(min(xs), max(xs), 6)), tuple(nice_ticks(min(ys), max(ys), 5)))

    def x(self, value: float) -> float:
        """From the left, in the picture's units."""
        first, last = self.x_ticks[0], self.x_ticks[-1]
        return self.left + (value - first) / (last - first) * (self.width - self.left - self.right)

    def y(self, value: float) -> float:
        """From the top, in the picture's units."""
        first, last = self.y_ticks[0], self.y_ticks[-1]
        return self.height - self.bottom - (value - first) / (last - first) * (self.height - self.top - self.bottom)

    def grid(self, x_label: str, y_label: str) -> list[Markup]:
        """Lines, numbers, and what is drawn along each axis."""
        base = self.height - self.bottom
        parts = []
        for tick in self.y_ticks:
            at = coordinate(self.y(tick))
            parts.append(tag("line", x1=self.left, x2=self.width - self.right, y1=at, y2=at, stroke="var(--rule)"))
            label = coordinate(self.y(tick) + 4)
            parts.append(tag("text", tick_text(tick, self.y_ticks), x=self.left - 8, y=label, text_anchor="end"))
        for tick in self.x_ticks:
            at = coordinate(self.x(tick))
            parts.append(tag("line", x1=at, x2=at, y1=base, y2=base + 4, stroke="var(--rule)"))
            parts.append(tag("text", tick_text(tick, self.x_ticks), x=at, y=base + 19, text_anchor="middle"))
        parts.append(tag("text", y_label, x=self.left, y=self.height - 4))
        parts.append(tag("text", x_label, x=self.width - self.right, y=self.height - 4, text_anchor="end"))
        return parts


def tick_text(value: float, ticks: tuple[float, ...]) -> str:
    """A tick, without digits that its step does not need."""
    step = ticks[1] - ticks[0] if len(ticks) > 1 else 1.0
    return f"{0.0 if abs(value) < step * 1e-6 else value:.5g}"
