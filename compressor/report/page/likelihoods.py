"""How likely each alternative was while the search ran: a small chart for each site, all on one scale.

Sites have different numbers of alternatives, so a chart shows how many times as likely one was as if all were alike:
every line begins near 1, and what moves can be seen after a short search, too.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from compressor.report import wording
from compressor.report.page.charts import coordinate, nice_ticks
from compressor.report.page.markup import Markup, join, legend, section, tag
from compressor.report.records import Report
from compressor.report.structure import Probabilities

#: Up to this many charts are shown open.
OPEN_CHARTS = 80
_WIDE, _TALL = 200, 96
_LEFT, _TOP, _BOTTOM = 4, 6, 16  # around what is drawn
_NUMBERS = 30_000  # points in all charts together, so that the page stays small
_LEAST, _MOST = 12, 100  # points of a line


@dataclass(frozen=True)
class _Chart:
    """One site. ``chosen`` and ``likeliest`` are numbers of alternatives; weights are (steps, alternatives).

    ``taking`` are those that took part, as what a budget rules out has no weight throughout.
    """

    name: str
    alternatives: Sequence[str]
    steps: Sequence[int]
    weights: Sequence[Sequence[float]]
    taking: Sequence[int]
    chosen: int
    likeliest: int

    def odds(self, step: int, index: int) -> float:
        """How many times as likely an alternative was as with even odds."""
        return self.weights[step][index] * len(self.taking)


def likelihoods(report: Report) -> Markup:
    """Left out where the search learned none."""
    made = {choice.name: choice.after for choice in report.choices}
    charts = _charts(report.probabilities, made)
    if not charts:
        return Markup("")
    moved = [chart for chart in charts if chart.chosen != chart.likeliest]
    keys = [("accent", "chosen"), *([("second", "likelier at the end")] if moved else []), ("before", "others")]
    lead = "How likely every alternative was at each site"
    more = ""
    if moved:
        more = (
            f" At {len(moved)} of {len(charts)} sites the likeliest was not taken: what is chosen has to fit the "
            "budgets, and the last steps may have changed the order."
        )
    return _drawn("Alternatives during the search", charts, keys, lead, more, all_of="sites")


def weight_sets(report: Report) -> Markup:
    """Left out where no weights were shared among configurations."""
    judged = {each.name: f"set {each.weight_set + 1}" for each in report.ranking}
    charts = [chart for chart in _charts(report.weight_sets, judged) if len(chart.alternatives) > 1]
    if not charts:
        return Markup("")
    keys = [("accent", "the weights it was judged with"), ("before", "the others")]
    if any(chart.chosen != chart.likeliest for chart in charts):
        keys.insert(1, ("second", "likelier at the end"))
    lead = f"How likely each of the {len(charts[0].alternatives)} sets of weights was to train each configuration"
    return _drawn("Weights that configurations shared", charts, keys, lead, "", all_of="configurations")


def _charts(rows: Sequence[Probabilities], made: Mapping[str, str]) -> list[_Chart]:
    return [chart for row in rows if (chart := _chart(row, made)) is not None]


def _drawn(
    title: str, charts: Sequence[_Chart], keys: Sequence[tuple[str, str]], lead: str, more: str, *, all_of: str
) -> Markup:
    seen = [1.0, *(c.odds(step, i) for c in charts for i in c.taking for step in range(len(c.steps)))]
    ticks = nice_ticks(min(seen), max(seen))
    span = ticks[0], ticks[-1]
    lines = sum(len(chart.taking) for chart in charts)
    most = min(_MOST, max(_LEAST, _NUMBERS // lines))
    grid = tag("div", join(_figure(chart, span, most) for chart in charts), class_="multiples charts")
    if len(charts) > OPEN_CHARTS:
        grid = tag("details", tag("summary", f"All {len(charts)} {all_of}"), grid)
    lead += (
        ", step by step, beside even odds, which are the thin line at 1. "
        f"All charts reach from {span[0]:g} to {span[1]:g}; the share is that of the last step shown.{more}"
    )
    return section(title, legend(keys), grid, lead=lead)


def _chart(row: Probabilities, made: Mapping[str, str]) -> _Chart | None:
    """What can be drawn; None where the record does not hang together."""
    count = len(row.alternatives)
    if not count or not row.steps or len(row.weights) != len(row.steps):
        return None
    if any(len(weights) != count for weights in row.weights):
        return None
    taking = [index for index in range(count) if any(weights[index] > 0 for weights in row.weights)]
    if not taking:
        return None
    end = row.weights[-1]
    likeliest = max(range(count), key=lambda index: end[index])
    after = made.get(row.name)
    chosen = row.alternatives.index(after) if after in row.alternatives else likeliest
    if math.isclose(end[chosen], end[likeliest]):
        likeliest = chosen
    return _Chart(row.name, row.alternatives, row.steps, row.weights, taking, chosen, likeliest)


def _figure(chart: _Chart, span: tuple[float, float], most: int) -> Markup:
    end = chart.weights[-1]

    def said(index: int) -> str:
        return f"{chart.alternatives[index]} {wording.percent(end[index], 0)}"

    caption = [tag("code", chart.name or "(network)"), tag("span", tag("b", said(chart.chosen), class_="changed"))]
    if chart.likeliest != chart.chosen:
        caption.append(tag("span", said(chart.likeliest), class_="likelier"))
    return tag("figure", _picture(chart, span, most), tag("figcaption", *caption))


def _picture(chart: _Chart, span: tuple[float, float], most: int) -> Markup:
    stride = -(-len(chart.steps) // most)
    taken = list(range(0, len(chart.steps), stride))
    if taken[-1] != len(chart.steps) - 1:
        taken.append(len(chart.steps) - 1)
    low, high = chart.steps[0], chart.steps[-1]
    floor = _TALL - _BOTTOM

    def x(step: int) -> float:
        return _LEFT + (step - low) / ((high - low) or 1) * (_WIDE - 2 * _LEFT)

    def y(odds: float) -> float:
        return floor - (odds - span[0]) / (span[1] - span[0]) * (floor - _TOP)

    def line(index: int) -> str:
        heights = [y(chart.odds(at, index)) for at in taken]
        places = [x(chart.steps[at]) for at in taken]
        if len(places) == 1:  # one step alone is a level
            places, heights = [_LEFT, _WIDE - _LEFT], heights * 2
        return "M" + "L".join(f"{a:.0f} {b:.1f}" for a, b in zip(places, heights, strict=True))

    shown = {chart.chosen, chart.likeliest}
    faint = "".join(line(index) for index in chart.taking if index not in shown)
    parts = [
        tag("rect", x=_LEFT, y=_TOP, width=_WIDE - 2 * _LEFT, height=floor - _TOP, fill="var(--surface)"),
        tag("path", d=f"M{_LEFT} {coordinate(y(1.0))}H{_WIDE - _LEFT}", stroke="var(--muted)", stroke_width=0.5),
    ]
    if faint:
        parts.append(_path(faint, "before", 1))
    if chart.likeliest != chart.chosen:
        parts.append(_path(line(chart.likeliest), "second", 1.5))
    parts.append(_path(line(chart.chosen), "accent", 2.25))
    parts.append(tag("text", low, x=_LEFT, y=_TALL - 3))
    if high != low:
        parts.append(tag("text", high, x=_WIDE - _LEFT, y=_TALL - 3, text_anchor="end"))
        parts.append(tag("text", "step", x=_WIDE / 2, y=_TALL - 3, text_anchor="middle"))
    names = ", ".join(f"{name} {end:.0%}" for name, end in zip(chart.alternatives, chart.weights[-1], strict=True))
    title = tag("title", f"{chart.name} at step {high}: {names}")
    return tag("svg", title, join(parts), viewBox=f"0 0 {_WIDE} {_TALL}", role="img")


def _path(d: str, colour: str, width: float) -> Markup:
    return tag("path", d=d, fill="none", stroke=f"var(--{colour})", stroke_width=width, stroke_linejoin="round")
