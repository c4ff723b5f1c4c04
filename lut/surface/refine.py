"""Which points to measure: few, where interpolation errs, until it errs less than a tolerance.

1. Corners and centre of the range.
2. Probes around the centre, along each axis: one channel and one to thirty-two channels further. They show staircases
   and alignment (``lut.surface.steps``); where the first two show none, the rest is left out.
3. Predict, measure, compare. Every other point comes from a fixed sequence that covers the range evenly, and the errors
   of predicting those *before* they are measured are an honest estimate of the error anywhere. The points between go
   where the estimate is most in doubt and errors close by were largest.

It ends when the mean error of the last even points is below the tolerance, or a limit is reached. Points the table has
already (from an interrupted run, or another model with the same layers) are not measured again: they are looked up when
their turn comes, and the others are compared and used before new ones are asked for.
"""

from __future__ import annotations

import dataclasses
import math
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from lut.errors import InvalidKeyError
from lut.key import Point
from lut.surface.interpolate import Surface
from lut.surface.steps import Floats, Ints, Pattern

_PROBES = (2, 4, 8, 32)  # channels past the centre, after 16 and 1
_CANDIDATES = 192
_ODD = (2, 4, 6, 1)


@dataclasses.dataclass(frozen=True)
class Domain:
    """The channel counts a table must answer for, ends included.

    Args:
        channels_in, channels_out: (smallest, largest); with one axis ``channels_out`` is ignored.
        axes: channel axes of the signature, 1 or 2.
    """

    channels_in: tuple[int, int]
    channels_out: tuple[int, int] = (1, 1)
    axes: int = 2

    def __post_init__(self) -> None:
        for low, high in (self.channels_in, self.channels_out):
            if not 1 <= low <= high:
                raise InvalidKeyError(f"A range of channels is 1 <= smallest <= largest; found {low} to {high}.")

    def range(self, axis: int) -> tuple[int, int]:
        """Ends along one axis."""
        return self.channels_in if axis == 0 or self.axes == 1 else self.channels_out

    def point(self, first: int, second: int) -> Point:
        """A point; with one axis both counts are the first."""
        return (first, first) if self.axes == 1 else (first, second)

    def __contains__(self, point: Point) -> bool:
        return all(low <= size <= high for size, (low, high) in zip(point, map(self.range, (0, 1)), strict=True))


class CrossCheck(NamedTuple):
    """One point that was predicted before it was measured."""

    point: Point
    predicted_ms: float
    measured_ms: float
    even: bool

    @property
    def error(self) -> float:
        """Relative error of the prediction."""
        return abs(self.predicted_ms - self.measured_ms) / self.measured_ms


@dataclasses.dataclass(frozen=True)
class Refinement:
    """What came out.

    Args:
        points: latencies in ms of all points in hand, known ones included.
        refused: points the device would not run.
        measured: how many points were newly measured or refused.
        error: mean relative error of the last even predictions; NaN if there were none.
        patterns: staircase and alignment found, along in and out; None if no point could be measured.
        stopped: "tolerance", "points", "time", "exhausted" (the range has no more points) or "refused".
    """

    points: dict[Point, float]
    refused: tuple[Point, ...]
    measured: int
    error: float
    patterns: tuple[Pattern, Pattern] | None
    stopped: str

    def surface(self, axes: int = 2) -> Surface:
        """The interpolation through these points."""
        return Surface(self.points, axes, self.patterns)


class Refiner:
    """Asks for points one by one, so that a caller may take turns between signatures, stop and go on.

        while (point := refiner.next_point()) is not None:
            refiner.add(point, measure(*point))     # milliseconds, None if refused

    Args:
        domain: what the table must answer for.
        tolerance: mean relative error to reach.
        max_points: measurements at most, not counting known points.
        known: latencies in ms of points in the table.
        refused: points known to be refused.
        window: how many even predictions the error is averaged over.
        patterns: staircase and alignment if known from signatures of the same kind; probing is then left out.
        only: ask for these points and no others: those are all that the table must answer for.
    """

    def __init__(
        self,
        domain: Domain,
        *,
        tolerance: float = 0.03,
        max_points: int = 60,
        known: Mapping[Point, float] | None = None,
        refused: tuple[Point, ...] = (),
        window: int = 8,
        patterns: tuple[Pattern, Pattern] | None = None,
        only: Sequence[Point] | None = None,
    ) -> None:
        if not tolerance > 0 or max_points < 1 or window < 1:
            raise InvalidKeyError("Refinement needs tolerance > 0, max_points >= 1 and window >= 1.")
        self.domain, self.tolerance, self.max_points, self.window = domain, tolerance, max_points, window
        self.checks: list[CrossCheck] = []
        self._known = dict(known or {})
        self._known_refused = set(refused)
        self._patterns = patterns
        self._taken: dict[Point, float] = {}
        self._refused: dict[Point, None] = {}
        self._measured = 0
        self._surface: Surface | None = None
        self._stale = False
        self._even_errors: deque[float] = deque(maxlen=window)
        self._waiting: Point | None = None
        self._stopped = ""
        self._plan = self._points() if only is None else iter(tuple(only))

    def next_point(self) -> Point | None:
        """The next point to measure, the same one until it is added; None when it is time to stop."""
        while self._waiting is None and not self._stopped:
            point = next(self._plan, None)
            if point is None:
                self._stopped = self._stopped or "exhausted"
            elif point in self._known or point in self._known_refused:
                self._take(point, self._known.get(point))
            elif self._measured >= self.max_points:
                self._stopped = "points"
            else:
                self._waiting = point
        return self._waiting

    def add(self, point: Point, latency_ms: float | None) -> None:
        """What measuring the point gave: milliseconds, or None if the device refused it."""
        if point != self._waiting:
            raise InvalidKeyError(f"The point asked for is {self._waiting}; found {point}.")
        if latency_ms is not None and not (math.isfinite(latency_ms) and latency_ms > 0):
            raise InvalidKeyError(f"A latency is a finite number above 0 ms; found {latency_ms!r} at {point}.")
        self._waiting = None
        self._measured += 1
        self._take(point, latency_ms)

    def result(self, stopped: str = "") -> Refinement:
        """What is known by now."""
        points = {**self._known, **self._taken}
        error = float(np.mean(self._even_errors)) if self._even_errors else math.nan
        patterns = Surface(points, self.domain.axes, self._patterns).patterns if points else None
        refused = tuple(self._refused)
        return Refinement(points, refused, self._measured, error, patterns, stopped or self._stopped)

    # The plan --------------------------------------------------------------------------------------------------------

    def _take(self, point: Point, latency_ms: float | None) -> None:
        if latency_ms is None:
            self._refused[point] = None
            return
        self._taken[point] = latency_ms
        self._stale = True

    def _now(self) -> Surface:
        """The interpolation through the points so far.

        Looking for staircases is the slow part; as long as predictions hold, those found before are good.
        """
        if self._surface is None or self._stale:
            wrong = self.checks and self.checks[-1].error > self.tolerance / 2
            found = self._surface.patterns if self._surface is not None and not wrong else None
            self._surface = Surface(self._taken, self.domain.axes, self._patterns or found)
            self._stale = False
        return self._surface

    def _points(self) -> Iterator[Point]:
        for point in self._skeleton():
            if not self._seen(point):
                yield point
        if self._refused and not self._taken:
            self._stopped = "refused"
            return
        if self._patterns is None:
            for axis in range(self.domain.axes):
                yield from self._probe(axis)
        yield from self._explore()

    def _seen(self, point: Point) -> bool:
        return point in self._taken or point in self._refused

    def _skeleton(self) -> list[Point]:
        ends = [self.domain.range(axis) for axis in (0, 1)]
        centre = self._centre()
        if self.domain.axes == 1:
            return [self.domain.point(size, size) for size in (*ends[0], centre[0])]
        corners = [(first, second) for first in reversed(ends[0]) for second in reversed(ends[1])]
        return [*corners, centre]

    def _centre(self) -> Point:
        """Near the geometric middle, on a multiple of 64 if there is one: where every staircase has an edge."""
        found = []
        for axis in (0, 1):
            low, high = self.domain.range(axis)
            middle = math.sqrt(low * high)
            multiple = next((size for size in (64, 32, 16, 8) if max(size, low) <= middle and 1.5 * size <= high), 1)
            found.append(max(int(middle // multiple * multiple), low))
        return self.domain.point(found[0], found[1])

    def _probe(self, axis: int) -> Iterator[Point]:
        centre = self._centre()
        high = self.domain.range(axis)[1]

        def at(offset: int) -> Point:
            if self.domain.axes == 1:
                return centre[0] + offset, centre[0] + offset
            return (centre[0] + offset, centre[1]) if axis == 0 else (centre[0], centre[1] + offset)

        first = [at(offset) for offset in (16, 1) if centre[axis] + offset <= high]
        for point in first:
            if not self._seen(point):
                yield point
        if len(first) == 2 and all(point in self._taken for point in (centre, *first)):
            start, end, near = (self._taken[point] for point in (centre, *first))
            plain = start + (end - start) / 16
            if abs(near - plain) < max(self.tolerance / 2, 0.01) * near:
                return
        for offset in _PROBES:
            if centre[axis] + offset <= high and not self._seen(at(offset)):
                yield at(offset)

    def _explore(self) -> Iterator[Point]:
        spare = deque(sorted((p for p in self._known if p in self.domain and not self._seen(p)), key=_scatter))
        sequence = self._sequence()
        turn = 0
        while True:
            even = turn % 2 == 0
            turn += 1
            point = spare.popleft() if spare else next(sequence, None) if even else self._doubtful()
            if point is None:
                if even:
                    return
                continue
            if self._seen(point):
                continue
            predicted = self._predict(point)
            even = even or bool(spare)
            yield point
            if point in self._taken and math.isfinite(predicted):
                check = CrossCheck(point, predicted, self._taken[point], even)
                self.checks.append(check)
                if even:
                    self._even_errors.append(check.error)
            if len(self._even_errors) == self.window and np.mean(self._even_errors) < self.tolerance:
                self._stopped = "tolerance"
                return

    def _predict(self, point: Point) -> float:
        return self._now().value(*point) if self._taken else math.nan

    def _sequence(self) -> Iterator[Point]:
        """Points that cover the range evenly in proportion (as many from 8 to 16 as from 256 to 512), no repeats."""
        found: set[Point] = set()
        sides = [high - low + 1 for low, high in (self.domain.range(axis) for axis in range(self.domain.axes))]
        total = math.prod(sides)
        for number in range(1, 64 * total + 1):
            point = self._spread(number)
            if point not in found:
                found.add(point)
                yield point
            if len(found) == total:
                return

    def _spread(self, number: int) -> Point:
        sizes = []
        for axis, base in ((0, 2), (1, 3)):
            low, high = self.domain.range(axis)
            size = math.exp(math.log(low) + _radical_inverse(number, base) * math.log((high + 1) / low))
            sizes.append(min(max(int(size), low), high))
        return self.domain.point(sizes[0], sizes[1])

    def _doubtful(self) -> Point | None:
        """Among many places the one where a wrong prediction is most likely."""
        offset = 1000 + _CANDIDATES * len(self._taken)
        options = {self._odd(self._spread(offset + number)) for number in range(_CANDIDATES)}
        places = sorted(point for point in options if point in self.domain and not self._seen(point))
        if not places or not self._taken:
            return places[0] if places else None
        first, second = (np.array([point[axis] for point in places], dtype=np.int64) for axis in (0, 1))
        score = self._now().estimate.doubt(first, np.ones_like(second) if self.domain.axes == 1 else second)
        return places[int(np.argmax(score * self._local_error(first, second)))]

    def _odd(self, point: Point) -> Point:
        """Along axes with an alignment, sizes whose family is not settled: 2 and 6 channels past a multiple of 8 fall
        to either side of an alignment of 2 or 4, and chance picks them too rarely."""
        past = _ODD[len(self.checks) // 2 % len(_ODD)]
        patterns = self._now().patterns if self._taken else ()
        sizes = [
            size // 8 * 8 + past if pattern.align > 1 else size for size, pattern in zip(point, patterns, strict=False)
        ]
        return self.domain.point(sizes[0], sizes[1]) if patterns else point

    def _local_error(self, first: Ints, second: Ints) -> Floats:
        """Errors of the predictions made so far, weighted by closeness, (n,)."""
        if not self.checks:
            return np.ones(len(first))
        seen = np.log(np.array([check.point for check in self.checks], dtype=np.float64))
        errors = np.array([min(check.error, 1.0) for check in self.checks]) + self.tolerance / 10
        distance = np.abs(np.log(first)[:, None] - seen[:, 0]) + np.abs(np.log(second)[:, None] - seen[:, 1])
        weights = 1.0 / (0.2 + distance) ** 2
        return np.asarray((weights * errors).sum(axis=1) / weights.sum(axis=1))


def refine(
    measure: Callable[[int, int], float | None],
    domain: Domain,
    *,
    tolerance: float = 0.03,
    max_points: int = 60,
    budget_s: float | None = None,
    known: Mapping[Point, float] | None = None,
    patterns: tuple[Pattern, Pattern] | None = None,
    clock: Callable[[], float] = time.monotonic,
) -> Refinement:
    """Measure until the interpolation is good enough: ``Refiner`` in a loop.

    Args:
        measure: ``measure(channels_in, channels_out)`` in ms, None if the device refuses the point.
        budget_s: seconds after which no new point is begun.
        clock: seconds, for ``budget_s``.
    """
    refiner = Refiner(domain, tolerance=tolerance, max_points=max_points, known=known, patterns=patterns)
    start = clock()
    while (point := refiner.next_point()) is not None:
        if budget_s is not None and clock() - start >= budget_s:
            return refiner.result("time")
        refiner.add(point, measure(*point))
    return refiner.result()


def _radical_inverse(number: int, base: int) -> float:
    """Van der Corput's sequence: the digits of the number mirrored at the point, in (0, 1)."""
    result, scale = 0.0, 1.0 / base
    while number:
        number, digit = divmod(number, base)
        result += digit * scale
        scale /= base
    return result


def _scatter(point: Point) -> tuple[int, Point]:
    """A fixed order without pattern, so that the first few known points are from all over the range."""
    return (point[0] * 2654435761 ^ point[1] * 40503) % 1_000_003, point
