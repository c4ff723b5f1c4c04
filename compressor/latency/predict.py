"""Predicted latency of operators: interpolation in a table, cached, and what calibration adds to it.

A network is not the sum of its operators timed alone: their weights are no longer in the cache when their turn comes,
and nor is what was written long before. Calibration (``compressor.latency.calibrate``) fits how much, with few numbers:
a factor per class of operators, and milliseconds per megabyte of weights, per megabyte of activations, and per
operator.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from statistics import median

import numpy as np

from compressor.arrays import FloatArray
from compressor.graph.graph import Graph
from compressor.graph.operators import Operator
from compressor.latency.profile import Family, family_of
from compressor.latency.signatures import runs, signature_of
from lut import Point, Signature
from lut.surface.estimate import detect
from lut.surface.interpolate import Surface
from lut.surface.steps import Pattern

#: Operators that share a factor; "ragged" are convolutions whose channels do not suit the runtime's own layout.
CLASSES = ("conv", "ragged", "depthwise", "product", "other")
_FALLBACK_MACS_PER_MS = 2e7
_FALLBACK_BYTES_PER_MS = 4e6


@dataclass(frozen=True)
class Coefficients:
    """What turns sums of table entries into whole-network latency. The defaults leave sums as they are."""

    scales: Mapping[str, float] = field(default_factory=lambda: dict.fromkeys(CLASSES, 1.0))
    weights_ms_per_mb: float = 0.0
    activations_ms_per_mb: float = 0.0
    operator_ms: float = 0.0

    def to_json(self) -> dict[str, float]:
        """Flat numbers, for ``lut.Calibration``."""
        return {
            **{f"scale_{name}": value for name, value in self.scales.items()},
            "weights_ms_per_mb": self.weights_ms_per_mb,
            "activations_ms_per_mb": self.activations_ms_per_mb,
            "operator_ms": self.operator_ms,
        }

    @staticmethod
    def from_json(values: Mapping[str, float]) -> Coefficients:
        """The inverse of :meth:`to_json`."""
        return Coefficients(
            {name: values.get(f"scale_{name}", 1.0) for name in CLASSES},
            values.get("weights_ms_per_mb", 0.0),
            values.get("activations_ms_per_mb", 0.0),
            values.get("operator_ms", 0.0),
        )


def class_of(operator: Operator) -> str:
    """Operators that share one factor."""
    if operator.kind.startswith("conv"):
        return "depthwise" if operator.depthwise else "conv"
    return "product" if operator.kind in ("linear", "matmul", "attention", "recurrent") else "other"


def traffic(operator: Operator) -> tuple[float, float, float]:
    """Megabytes of weights per (channel in x channel out), and of activations per channel in and per channel out."""
    per_pair = 0.0
    if operator.weights:
        per_pair = float(np.prod(operator.kernel or (1,))) * (operator.groups if operator.groups > 1 else 1)
    if operator.depthwise:
        per_pair = 0.0
    into = float(np.prod(operator.spatial or (1,))) * (operator.groups if operator.groups > 1 else 1)
    out = float(operator.out_positions) * (operator.groups if operator.groups > 1 else 1)
    if operator.kind == "attention":
        into, out = out * 2, out * 2
    return per_pair * 4e-6, into * 4e-6, out * 4e-6


class Lookup:
    """Latency and slopes of every operator of a graph at any channel counts, in the order of ``signatures.runs``: those
    that a choice changes by alternative.

    Args:
        graph: the operators.
        cropped: answer for their kernels cropped as far as they can be.
        points: measured latencies in ms by signature; a signature that is missing is estimated from its work, at the
            rate that the measured ones of its class run at.

    Attributes:
        estimated: labels of the signatures that are estimated.
    """

    def __init__(
        self, graph: Graph, points: Mapping[Signature, Mapping[Point, float]], *, cropped: bool = False
    ) -> None:
        self.operators = [run.operator for run in runs(graph)]
        self.cropped: Lookup | None = None
        if cropped:
            self.operators = [operator.cropped or operator for operator in self.operators]
        elif any(operator.cropped for operator in self.operators):
            self.cropped = Lookup(graph, points, cropped=True)
        signatures = [signature_of(operator) for operator in self.operators]
        distinct = list(dict.fromkeys(signatures))
        number = {signature: place for place, signature in enumerate(distinct)}
        self.index = np.array([number[signature] for signature in signatures], dtype=np.int64)
        patterns = _patterns(points)
        self.liked = _liked(points)
        self.surfaces: list[Surface | None] = []
        for signature in distinct:
            measured = points.get(signature)
            family = patterns.get(family_of(signature))
            self.surfaces.append(Surface(measured, signature.axes, family) if measured else None)
        self.estimated = [s.label for s, found in zip(distinct, self.surfaces, strict=True) if found is None]
        if self.estimated:
            self._estimate(distinct)
        self._known: list[dict[Point, int]] = [{} for _ in distinct]
        self._values: list[FloatArray] = [np.zeros((0, 4)) for _ in distinct]
        self._last: tuple[FloatArray, FloatArray, FloatArray] | None = None

    def __call__(self, channels_in: FloatArray, channels_out: FloatArray) -> FloatArray:
        """Value in ms, slopes in ms per channel, and whether channels are ragged (0 to 1): shape (n_operators, 4).

        Args:
            channels_in, channels_out: counts of shape (n_operators,), whole or not.
        """
        last = self._last  # a search over choices alone asks for the same counts in every step
        if last is None or not (np.array_equal(last[0], channels_in) and np.array_equal(last[1], channels_out)):
            last = self._last = channels_in.copy(), channels_out.copy(), self._between(channels_in, channels_out)
        return last[2]

    def _between(self, channels_in: FloatArray, channels_out: FloatArray) -> FloatArray:
        low_in, low_out = np.floor(channels_in), np.floor(channels_out)
        part_in, part_out = channels_in - low_in, channels_out - low_out
        whole = not (part_in.any() or part_out.any())
        result: FloatArray = self._at(low_in, low_out)
        if whole:
            return result
        up_in, up_out = np.ceil(channels_in), np.ceil(channels_out)
        a, b = part_in[:, None], part_out[:, None]
        near = result * (1 - a) + self._at(up_in, low_out) * a
        far = self._at(low_in, up_out) * (1 - a) + self._at(up_in, up_out) * a
        return np.asarray(near * (1 - b) + far * b)

    def _at(self, channels_in: FloatArray, channels_out: FloatArray) -> FloatArray:
        """The same at whole counts, from the cache where they were asked for before."""
        ones = channels_in.astype(np.int64).tolist()
        twos = channels_out.astype(np.int64).tolist()
        places = self.index.tolist()
        missing: dict[int, dict[Point, None]] = {}
        for place, one, two in zip(places, ones, twos, strict=True):
            if (one, two) not in self._known[place]:
                missing.setdefault(place, {})[one, two] = None
        for place, wanted in missing.items():
            self._learn(place, list(wanted))
        return np.stack(
            [
                self._values[place][self._known[place][one, two]]
                for place, one, two in zip(places, ones, twos, strict=True)
            ]
        )

    def _learn(self, place: int, wanted: list[Point]) -> None:
        surface = self.surfaces[place]
        if surface is None:
            raise LookupError(place)  # the constructor leaves none
        found = surface.evaluate([one for one, _ in wanted], [two for _, two in wanted])
        start = len(self._values[place])
        ones, twos = (np.array([point[side] for point in wanted], dtype=np.int64) for side in (0, 1))
        ragged = ~surface.patterns[0].aligned(ones) | ~surface.patterns[1].aligned(twos)
        rows = np.stack([found.value_ms, found.d_in, found.d_out, ragged.astype(np.float64)], axis=1)
        rows[[one <= 0 or two <= 0 for one, two in wanted], 0] = 0.0  # nothing left to run
        self._values[place] = np.concatenate([self._values[place], rows])
        for offset, point in enumerate(wanted):
            self._known[place][point] = start + offset

    def _estimate(self, distinct: list[Signature]) -> None:
        """Give missing signatures a surface of their work at the median rate of the measured ones of their class."""
        first: dict[int, Operator] = {}
        for operator, place in zip(self.operators, self.index.tolist(), strict=True):
            first.setdefault(place, operator)
        rates: dict[str, list[float]] = {}
        for place, surface in enumerate(self.surfaces):
            if surface is not None:
                operator = first[place]
                full = operator.channels_in.full, operator.channels_out.full
                rates.setdefault(class_of(operator), []).append(work_of(operator, *full) / surface.value(*full))
        for place, surface in enumerate(self.surfaces):
            if surface is None:
                operator = first[place]
                kind = class_of(operator)
                rate = median(rates[kind]) if kind in rates else 1.0
                ends = {(operator.channels_in.full, operator.channels_out.full)}
                ends |= {(max(1, one // 8), max(1, two // 8)) for one, two in ends}
                made = {end: max(work_of(operator, *end) / rate, 1e-6) for end in ends}
                self.surfaces[place] = Surface(made, distinct[place].axes, (Pattern(), Pattern()))


def work_of(operator: Operator, channels_in: int, channels_out: int) -> float:
    """A guess in ms from arithmetic and traffic, for comparing operators of one class."""
    pair, into, out = traffic(operator)
    macs = pair / 4e-6 * channels_in * channels_out * operator.out_positions
    if operator.depthwise:
        macs = float(np.prod(operator.kernel)) * channels_in * operator.out_positions
    if operator.kind == "recurrent":  # three or four gates, each from what comes in and from the state
        macs = 4.0 * (channels_in + channels_out) * channels_out * operator.out_positions
    moved = 1e6 * (into * channels_in + out * channels_out)
    return max(macs / _FALLBACK_MACS_PER_MS, moved / _FALLBACK_BYTES_PER_MS, 1e-4)


def _patterns(points: Mapping[Signature, Mapping[Point, float]]) -> dict[Family, tuple[Pattern, Pattern]]:
    """Staircases of every family, from all its signatures together: one alone has few points and much noise."""
    families: dict[Family, list[Signature]] = {}
    for signature in points:
        families.setdefault(family_of(signature), []).append(signature)
    return {
        family: detect([dict(points[signature]) for signature in found], found[0].axes)
        for family, found in families.items()
    }


def _liked(points: Mapping[Signature, Mapping[Point, float]]) -> dict[Family, tuple[int, int]]:
    """Steps of every family's staircases, along in and out, from its signature with most points: it was probed for
    them, channel by channel; the others tell well how much a step costs, and badly how wide it is."""
    best: dict[Family, Signature] = {}
    for signature, measured in points.items():
        family = family_of(signature)
        if family not in best or len(measured) > len(points[best[family]]):
            best[family] = signature
    found = {family: detect([dict(points[s])], s.axes) for family, s in best.items()}
    return {family: (one.step, two.step) for family, (one, two) in found.items()}


def multiples(graph: Graph, lookup: Lookup) -> dict[str, int]:
    """Widths the device likes: for each group the step that the operators reading and writing it agree on.

    Every operator votes with its latency for the staircase step along its side (its alternatives with their shares);
    the step with most votes wins, and is used if the group is at least twice as wide.
    """
    votes: dict[int, dict[int, float]] = {}
    groups_on: dict[int, set[int]] = {}
    group_of = np.full(graph.n_units + 1, -1)
    for group in graph.groups:
        group_of[group.units] = group.index
    for axis in graph.axes:
        groups_on[axis.index] = {int(g) for g in np.unique(group_of[axis.factors]) if g >= 0}
    for run, place in zip(runs(graph), lookup.index.tolist(), strict=True):
        surface, operator = lookup.surfaces[place], run.operator
        if surface is None:
            continue
        cost = surface.value(operator.channels_in.full, operator.channels_out.full)
        cost /= len(graph.operators[run.of].variants) or 1
        steps = lookup.liked.get(family_of(signature_of(operator)), (1, 1))
        for extent, step in zip((operator.channels_in, operator.channels_out), steps, strict=True):
            for axis in extent.axes:
                for g in groups_on[axis.index]:
                    votes.setdefault(g, {}).setdefault(max(1, step), 0.0)
                    votes[g][max(1, step)] += cost
    found = {}
    for g, counted in votes.items():
        step = max(counted, key=lambda s: counted[s])
        width = len(graph.groups[g]) * graph.groups[g].width
        while step > 1 and width < 2 * step:
            step //= 2
        if step > 1:
            found[graph.groups[g].name] = step
    return found
