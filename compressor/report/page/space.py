"""How the boundaries of a search space moved over the training: a small chart for each kind of dimension."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from compressor.report.page.charts import coordinate
from compressor.report.page.markup import Markup, join, legend, section, tag

_WIDE, _TALL, _LEFT, _BOTTOM, _TOP = 250, 150, 44, 20, 10
#: Colours of the boundaries, and what they are called.
_BOUNDARIES = {"max": ("accent", "largest networks"), "min": ("second", "smallest networks")}
_NAMES = {"width": "Widths", "depth": "Depths", "kernel": "Kernels", "squeeze": "Squeeze and excite"}
_MOST = 200  # steps that are drawn


@dataclass(frozen=True)
class _Line:
    """One boundary of one kind: steps, means and standard deviations, as shares of what the network has."""

    boundary: str
    steps: list[float]
    means: list[float]
    stds: list[float]


def space(history: Sequence[Mapping[str, Any]]) -> Markup:
    """A chart per kind from entries ``{"step": ..., "policies": {"max": {kind: mean}, "max_std": {...}, ...}}``.

    Entries without ``policies`` are left out, as is the section without any.
    """
    noted = [(index, entry) for index, entry in enumerate(history) if isinstance(entry.get("policies"), Mapping)]
    if len(noted) < 2:
        return Markup("")
    kinds = dict.fromkeys(kind for _, entry in noted for name in _BOUNDARIES for kind in _values(entry, name))
    figures = [_figure(kind, lines) for kind in kinds if (lines := _lines(noted, kind))]
    if not figures:
        return Markup("")
    return section(
        "Search space over training",
        legend(_BOUNDARIES.values()),
        tag("div", join(figures), class_="multiples strips"),
        lead="Mean over all dimensions of a kind of what the policies of the largest and the smallest networks keep, "
        "as a share of what the network has. Bands are one standard deviation wide on either side.",
    )


def _values(entry: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    found = entry["policies"].get(name)
    return found if isinstance(found, Mapping) else {}


def _lines(noted: Sequence[tuple[int, Mapping[str, Any]]], kind: str) -> list[_Line]:
    lines = []
    stride = -(-len(noted) // _MOST)
    shown = [*noted[:-1:stride], noted[-1]]
    for name in _BOUNDARIES:
        rows = [
            (
                float(entry.get("step", index)),
                float(_values(entry, name)[kind]),
                _values(entry, f"{name}_std").get(kind),
            )
            for index, entry in shown
            if isinstance(_values(entry, name).get(kind), (int, float))
        ]
        if rows:
            steps, means = [row[0] for row in rows], [row[1] for row in rows]
            lines.append(_Line(name, steps, means, [float(row[2] or 0.0) for row in rows]))
    return lines


def _figure(kind: str, lines: Sequence[_Line]) -> Markup:
    low = min(line.steps[0] for line in lines)
    high = max(line.steps[-1] for line in lines)
    floor = _TALL - _BOTTOM

    def x(step: float) -> float:
        return _LEFT + (step - low) / ((high - low) or 1.0) * (_WIDE - _LEFT - 4)

    def y(share: float) -> float:
        return floor - min(1.0, max(0.0, share)) * (floor - _TOP)

    parts = []
    for tick in (0.0, 0.5, 1.0):
        at = coordinate(y(tick))
        parts.append(tag("line", x1=_LEFT, x2=_WIDE - 4, y1=at, y2=at, stroke="var(--rule)"))
        parts.append(tag("text", f"{tick:.0%}", x=_LEFT - 5, y=coordinate(y(tick) + 4), text_anchor="end"))
    ends = []
    for line in lines:
        colour, called = _BOUNDARIES[line.boundary]
        above = [(x(s), y(m + d)) for s, m, d in zip(line.steps, line.means, line.stds, strict=True)]
        below = [(x(s), y(m - d)) for s, m, d in zip(line.steps, line.means, line.stds, strict=True)]
        middle = [(x(s), y(m)) for s, m in zip(line.steps, line.means, strict=True)]
        parts.append(tag("polygon", points=_path([*above, *reversed(below)]), fill=f"var(--{colour})", opacity=0.15))
        parts.append(tag("polyline", points=_path(middle), fill="none", stroke=f"var(--{colour})", stroke_width=2))
        ends.append(f"{called} {line.means[-1]:.0%}")
    parts.append(tag("text", f"{low:g}", x=_LEFT, y=_TALL - 4))
    parts.append(tag("text", f"step {high:g}", x=_WIDE - 4, y=_TALL - 4, text_anchor="end"))
    title = _NAMES.get(kind, kind.replace("_", " ").capitalize())
    said = f"{title} at step {high:g}: {', '.join(ends)}"
    chart = tag("svg", tag("title", said), join(parts), viewBox=f"0 0 {_WIDE} {_TALL}", role="img")
    return tag("figure", chart, tag("figcaption", tag("b", title), tag("span", ", ".join(ends))))


def _path(points: Sequence[tuple[float, float]]) -> str:
    return " ".join(f"{coordinate(a)},{coordinate(b)}" for a, b in points)
