"""Charts as inline SVG, coloured by the style sheet's variables so that they follow light and dark."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from compressor.report.page.markup import Markup, join, tag

WIDTH = 944
#: Colours of the lines of a chart, in order.
COLOURS = ("accent", "second", "third", "fourth")


def bar(
    fraction: float,
    *,
    limit: float | None = None,
    colour: str = "accent",
    thin: bool = False,
    name: str | None = None,
) -> Markup:
    """A horizontal bar of ``fraction`` of its track, with an upright line at ``limit``.

    ``name`` says what the bar shows where it is no share of the original.
    """
    shown = min(1.0, max(0.0, fraction))
    parts = [
        tag("rect", width=1000, height=12, fill="var(--track)"),
        tag("rect", width=coordinate(shown * 1000), height=12, fill=f"var(--{colour})"),
    ]
    if limit is not None:
        parts.append(tag("rect", x=coordinate(min(1.0, limit) * 1000 - 3), width=5, height=12, fill="var(--text)"))
    if name is None:
        name = f"{fraction:.1%} of the original" + (f", limit {limit:.1%}" if limit is not None else "")
    return tag(
        "svg",
        tag("title", name),
        join(parts),
        class_="bar thin" if thin else "bar",
        viewBox="0 0 1000 12",
        preserveAspectRatio="none",
        role="img",
    )


def before_after(before: float, after: float, largest: float) -> Markup:
    """Two overlaid bars on a common scale, the longer one behind: grey for before, accent for after."""
    scale = 1000 / largest if largest else 0.0
    bars = [
        tag("rect", width=coordinate(before * scale), height=12, fill="var(--before)", opacity=0.55),
        tag("rect", width=coordinate(after * scale), height=12, fill="var(--accent)"),
    ]
    return tag(
        "svg",
        tag("title", f"{before:g} before, {after:g} after"),
        *(bars if before >= after else reversed(bars)),
        class_="bar thin",
        viewBox="0 0 1000 12",
        preserveAspectRatio="none",
        role="img",
    )


def stacked(values: Sequence[float], colours: Sequence[str], name: str) -> Markup:
    """One bar divided in proportion to ``values``; ``name`` says what it shows."""
    total = sum(values) or 1.0
    parts, x = [tag("title", name)], 0.0
    for value, colour in zip(values, colours, strict=True):
        width = value / total * 1000
        parts.append(
            tag("rect", x=coordinate(x), width=coordinate(max(0.0, width - 2)), height=12, fill=f"var(--{colour})")
        )
        x += width
    return tag("svg", join(parts), class_="bar", viewBox="0 0 1000 12", preserveAspectRatio="none", role="img")


def latency_ranges(rows: Sequence[tuple[str, str, dict[str, Any]]]) -> Markup:
    """One line per timing: band from the 5th to the 95th percentile, a stroke at the median, a dot at the 99th.

    Args:
        rows: name, colour variable, timing as JSON.
    """
    left, right, line = 190, 24, 44
    ticks = nice_ticks(0.0, max(timing["p99_ms"] for _, _, timing in rows) * 1.04)
    height = line * len(rows) + 36

    def x(value: float) -> float:
        return left + value / ticks[-1] * (WIDTH - left - right)

    parts = []
    for tick in ticks:
        parts.append(
            tag("line", x1=coordinate(x(tick)), x2=coordinate(x(tick)), y1=4, y2=height - 28, stroke="var(--rule)")
        )
        parts.append(tag("text", _tick(tick, ticks), x=coordinate(x(tick)), y=height - 10, text_anchor="middle"))
    for index, (name, colour, timing) in enumerate(rows):
        y = 4 + line * index + line / 2
        low, middle, high, tail = (x(float(timing[key])) for key in ("p5_ms", "median_ms", "p95_ms", "p99_ms"))
        fill = f"var(--{colour})"
        parts += [
            tag("text", name, x=0, y=coordinate(y + 5), class_="strong"),
            tag(
                "line",
                x1=coordinate(high),
                x2=coordinate(tail),
                y1=coordinate(y),
                y2=coordinate(y),
                stroke=fill,
                stroke_width=2,
            ),
            tag(
                "rect",
                x=coordinate(low),
                y=coordinate(y - 9),
                width=coordinate(max(1.5, high - low)),
                height=18,
                rx=3,
                fill=fill,
                opacity=0.4,
            ),
            tag("rect", x=coordinate(middle - 2), y=coordinate(y - 13), width=4, height=26, rx=1.5, fill=fill),
            tag("circle", cx=coordinate(tail), cy=coordinate(y), r=4, fill=fill),
        ]
    return tag("svg", join(parts), viewBox=f"0 0 {WIDTH} {height}", role="img", aria_label="Latency percentiles in ms")


def columns(pairs: Sequence[tuple[float, float]]) -> Markup:
    """A column per layer, from input to output, the longer of before and after behind the other."""
    height, left, bottom = 190, 46, 26
    ticks = nice_ticks(0.0, max(max(pair) for pair in pairs))
    span = (WIDTH - left) / len(pairs)
    gap = min(3.0, span * 0.25)

    def y(value: float) -> float:
        return height - bottom - value / ticks[-1] * (height - bottom - 8)

    parts = []
    for tick in ticks:
        parts.append(
            tag("line", x1=left, x2=WIDTH, y1=coordinate(y(tick)), y2=coordinate(y(tick)), stroke="var(--rule)")
        )
        parts.append(tag("text", _tick(tick, ticks), x=left - 8, y=coordinate(y(tick) + 4), text_anchor="end"))
    for index, (before, after) in enumerate(pairs):
        x, width = left + index * span + gap / 2, span - gap
        bars = [(before, "var(--before)", 0.5), (after, "var(--accent)", 1.0)]
        for value, fill, opacity in sorted(bars, key=lambda bar: -bar[0]):
            top = y(value)
            parts.append(
                tag(
                    "rect",
                    x=coordinate(x),
                    y=coordinate(top),
                    width=coordinate(width),
                    height=coordinate(y(0) - top),
                    fill=fill,
                    opacity=opacity,
                )
            )
    parts.append(tag("text", "input", x=left, y=height - 6))
    parts.append(tag("text", "output", x=WIDTH, y=height - 6, text_anchor="end"))
    return tag("svg", join(parts), viewBox=f"0 0 {WIDTH} {height}", role="img", aria_label="Widths before and after")


def lines(
    series: Sequence[tuple[str, str, Sequence[tuple[float, float]]]], limits: Sequence[tuple[str, float]], x_label: str
) -> Markup:
    """A line chart of fractions over steps, with dashed limits.

    Args:
        series: name, colour variable, points (step, fraction of the original).
        limits: colour variable, fraction.
    """
    height, left, right, top, bottom = 300, 56, 12, 12, 44
    points = [point for _, _, values in series for point in values]
    x_low, x_high = min(p[0] for p in points), max(p[0] for p in points)
    highest = max(p[1] for p in points)
    y_ticks = nice_ticks(0.0, highest if highest > 1.05 else 1.0)  # noise above the original needs no axis of its own
    x_ticks = [tick for tick in nice_ticks(x_low, x_high) if x_low <= tick <= x_high]

    def x(value: float) -> float:
        return left + (value - x_low) / ((x_high - x_low) or 1.0) * (WIDTH - left - right)

    def y(value: float) -> float:
        return height - bottom - value / y_ticks[-1] * (height - bottom - top)

    parts = []
    for tick in y_ticks:
        parts.append(
            tag("line", x1=left, x2=WIDTH - right, y1=coordinate(y(tick)), y2=coordinate(y(tick)), stroke="var(--rule)")
        )
        parts.append(tag("text", f"{tick * 100:.0f} %", x=left - 10, y=coordinate(y(tick) + 4), text_anchor="end"))
    for tick in x_ticks:
        parts.append(
            tag("text", _tick(tick, x_ticks), x=coordinate(x(tick)), y=height - bottom + 20, text_anchor="middle")
        )
    parts.append(tag("text", x_label, x=WIDTH - right, y=height - 4, text_anchor="end"))
    for colour, limit in limits:
        parts.append(
            tag(
                "line",
                x1=left,
                x2=WIDTH - right,
                y1=coordinate(y(limit)),
                y2=coordinate(y(limit)),
                stroke=f"var(--{colour})",
                stroke_width=1.5,
                stroke_dasharray="6 5",
            )
        )
    for _, colour, values in series:
        path = " ".join(f"{coordinate(x(a))},{coordinate(y(b))}" for a, b in values)
        parts.append(
            tag(
                "polyline",
                points=path,
                fill="none",
                stroke=f"var(--{colour})",
                stroke_width=2.25,
                stroke_linejoin="round",
            )
        )
    return tag("svg", join(parts), viewBox=f"0 0 {WIDTH} {height}", role="img", aria_label="Cost during search")


def nice_ticks(low: float, high: float, wanted: int = 5) -> list[float]:
    """Round numbers from at or below ``low`` to at or above ``high``, about ``wanted`` steps of 1, 2 or 5 tens."""
    span = high - low if high > low else abs(high) or 1.0
    raw = span / wanted
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= raw * 0.999)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [index * step for index in range(first, max(last, first + 1) + 1)]


def _tick(value: float, ticks: Sequence[float]) -> str:
    step = ticks[1] - ticks[0] if len(ticks) > 1 else 1.0
    digits = max(0, -math.floor(math.log10(step) + 1e-9)) if step > 0 else 0
    return f"{value:.{digits}f}"


def coordinate(value: float) -> str:
    """A coordinate, short."""
    return f"{value:.2f}".rstrip("0").rstrip(".")
