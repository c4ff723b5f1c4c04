"""What the rows of ``search_space`` say: accuracies with standard errors, and where they lie beside the random subnets."""

from __future__ import annotations

import math
import statistics
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

KINDS = ("figs", "retrained", "uniform")
LEAST = 4
"""Random subnets that a line is laid through."""

Row = Mapping[str, Any]


@dataclass(frozen=True)
class Cloud:
    """Random subnets of one aggregator, and the straight line of accuracy over the logarithm of the multiply-adds."""

    rows: Sequence[Row]
    slope: float
    offset: float
    spread: float
    """Standard deviation of the subnets around the line."""

    @classmethod
    def of(cls, rows: Sequence[Row]) -> Cloud | None:
        """None where there are too few subnets for a line."""
        if len(rows) < LEAST:
            return None
        x, y = np.log([row["macs"] for row in rows]), np.array([row["accuracy"] for row in rows])
        slope, offset = np.polyfit(x, y, 1)
        left = y - slope * x - offset
        return cls(tuple(rows), float(slope), float(offset), math.sqrt(float((left**2).sum()) / (len(rows) - 2)))

    def above(self, row: Row) -> float:
        """Accuracy above the line, at the multiply-adds of ``row``."""
        return float(row["accuracy"] - self.slope * math.log(row["macs"]) - self.offset)

    def better(self, row: Row) -> int:
        """Random subnets that are at least as accurate and cost no more."""
        return sum(r["accuracy"] >= row["accuracy"] and r["macs"] <= row["macs"] for r in self.rows)

    def cheaper(self, row: Row) -> int:
        """Random subnets that cost no more than ``row``."""
        return sum(r["macs"] <= row["macs"] for r in self.rows)


def mean(values: Sequence[float], sign: str = "") -> str:
    """The mean of fractions in percent, with its standard error where there are several."""
    if not values:
        return ""
    text = f"{100 * statistics.mean(values):{sign}.1f}"
    return text if len(values) < 2 else f"{text} ± {100 * statistics.stdev(values) / len(values) ** 0.5:.1f}"


def _paired(rows: Mapping[str, Mapping[int, Row]], kind: str) -> list[float]:
    """Differences in accuracy from uniform widths, seed by seed."""
    base = rows.get("uniform", {})
    return [row["accuracy"] - base[seed]["accuracy"] for seed, row in rows.get(kind, {}).items() if seed in base]


def searches(rows: Sequence[Row]) -> str:
    """A line for each aggregator, budget and kind."""
    lines = [
        "| aggregator | budget | network | seeds | multiply-adds | operators | accuracy, % | against uniform, points | above the random line, points | random: at least as good, of those that cost no more | s |",
        "| --- | ---: | --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    found: dict[tuple[str, float], dict[str, dict[int, Row]]] = defaultdict(lambda: defaultdict(dict))
    clouds = {a: Cloud.of([r for r in rows if r["kind"] == "random" and r["aggregator"] == a]) for a in _names(rows)}
    for row in rows:
        if row["kind"] != "random":
            found[row["aggregator"], row["budget"]][row["kind"]][row["seed"]] = row
    for (aggregator, budget), kinds in sorted(found.items(), key=lambda item: (item[0][0] != "concat", item[0][1])):
        cloud = clouds[aggregator]
        for kind in KINDS:
            if not (each := list(kinds.get(kind, {}).values())):
                continue
            above = "" if cloud is None else mean([cloud.above(row) for row in each], "+")
            beaten = ", ".join(f"{cloud.better(row)} of {cloud.cheaper(row)}" for row in each) if cloud else ""
            macs, operators, seconds = (
                statistics.mean(r[key] for r in each) for key in ("macs", "operators", "seconds")
            )
            against = "" if kind == "uniform" else mean(_paired(kinds, kind), "+")
            lines.append(
                f"| {aggregator} | {budget:.0%} | {kind} | {len(each)} | {macs / 1e6:.3f} M | {operators:.1f} | "
                f"{mean([r['accuracy'] for r in each])} | {against} | {above} | {beaten} | {seconds:.0f} |"
            )
    return "\n".join(lines)


def clouds(rows: Sequence[Row]) -> str:
    """The random subnets of each aggregator, by thirds of their cost."""
    lines = ["| aggregator | random subnets | multiply-adds | accuracy, % | best, % | s |"]
    lines.append("| --- | ---: | ---: | ---: | ---: | ---: |")
    for aggregator in _names(rows):
        each = sorted(
            (r for r in rows if r["kind"] == "random" and r["aggregator"] == aggregator), key=lambda r: r["macs"]
        )
        for part in (p for p in np.array_split(np.arange(len(each)), 3) if len(p)):
            of = [each[i] for i in part]
            lines.append(
                f"| {aggregator} | {len(of)} | {of[0]['macs'] / 1e6:.3f} to {of[-1]['macs'] / 1e6:.3f} M | "
                f"{mean([r['accuracy'] for r in of])} | {100 * max(r['accuracy'] for r in of):.1f} | "
                f"{statistics.mean(r['seconds'] for r in of):.0f} |"
            )
        cloud = Cloud.of(each)
        if cloud is not None:
            lines.append(
                f"| {aggregator} | {len(each)}, around a line of {100 * cloud.slope * math.log(2):+.1f} points for twice the cost | "
                f"| ± {100 * cloud.spread:.1f} (standard deviation) | | |"
            )
    return "\n".join(lines)


def table(rows: Sequence[Row]) -> str:
    """Both tables as Markdown, and the processor time of all rows."""
    total = sum(row["seconds"] for row in rows)
    return f"{searches(rows)}\n\n{clouds(rows)}\n\n{len(rows)} runs, {total / 60:.1f} minutes of processor time."


def _names(rows: Sequence[Row]) -> list[str]:
    return [a for a in ("concat", "add") if any(row["aggregator"] == a for row in rows)]
