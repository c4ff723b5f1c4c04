"""Latency as a function of channels in and out, from measured points, with a slope that a search can follow.

**Value.** At a measured point exactly what was measured. Elsewhere piecewise bilinear between the measured rows and
columns; where a row and a column cross without a measurement, ``lut.surface.estimate`` fills in. Distances between rows
are counted in levels of the staircase found along that axis (``lut.surface.steps``), so a step of 16 is reproduced from
few points: flat, then up within one channel. Sizes of a slower kernel family lie between rows of their own family only.
Between whole channel counts the value is linear. If the measured latencies never fall where channels grow, neither does
the interpolation between them. Beyond the measured range the value at its edge is extended in proportion to the work
model.

**Slope.** The derivative of a staircase is zero nearly everywhere and tells a search nothing. What is returned is the
derivative of the value after averaging over a window of one step, ``(f(c + w/2) - f(c - w/2)) / w``: the slope of the
envelope, periodic ups and downs cancel exactly. Without a staircase the window is one channel and the slope is the
ordinary derivative. Where the window sees (almost) nothing, because the measured data are flat, it is widened.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from lut.errors import InvalidKeyError
from lut.key import Measurement, Point
from lut.surface.estimate import Estimate, columns, detect
from lut.surface.steps import Floats, Ints, Pattern, fraction

_WIDEST = 128.0  # channels; the largest window for a slope
_FLAT = 0.1  # of the work model's slope: below, a window counts as flat


class Evaluation(NamedTuple):
    """Latency in ms and its slopes in ms per channel, each of the broadcast shape of the inputs.

    With one channel axis the whole slope is in ``d_in`` and ``d_out`` is zero.
    """

    value_ms: Floats
    d_in: Floats
    d_out: Floats


def usable(points: Mapping[Point, Measurement]) -> dict[Point, float]:
    """Latencies in ms of the points that were measured; refused ones are left out, noisy ones serve if need be.

    A noisy point is left out as soon as there are three good ones.
    """
    good = {point: took.median_ms for point, took in points.items() if took.status == "ok" and took.median_ms}
    if len(good) >= 3:
        return good
    return {point: took.median_ms for point, took in points.items() if took.median_ms}


class _Axis:
    """Where each whole channel count lies between the measured ones: two rows, and how far from the first."""

    def __init__(self, nodes: Ints, pattern: Pattern) -> None:
        self.nodes, self.pattern = nodes, pattern
        self._period = pattern.align
        self._top = int(nodes[-1]) + pattern.align
        channels = np.arange(self._top + 1)
        self.low, self.high = np.zeros_like(channels), np.zeros_like(channels)
        self.anchor = pattern.level(channels)
        aligned = pattern.aligned(nodes)
        for members, mine in ((aligned, pattern.aligned(channels)), (~aligned, ~pattern.aligned(channels))):
            rows = np.flatnonzero(members) if members.any() else np.arange(len(nodes))
            after = np.searchsorted(nodes[rows], channels[mine], side="left")
            high = rows[np.clip(after, 0, len(rows) - 1)]
            exact = nodes[high] == channels[mine]
            low = np.where(exact, high, rows[np.clip(after - 1, 0, len(rows) - 1)])
            self.low[mine], self.high[mine] = low, high
            outside = (after == len(rows)) | ((after == 0) & ~exact)
            self.anchor[mine] = np.where(outside, pattern.level(nodes[high]), self.anchor[mine])
        self.part = fraction(pattern, channels, nodes[self.low], nodes[self.high])
        self.part = np.clip(self.part, 0.0, 1.0)

    def index(self, channels: Ints) -> Ints:
        """Position in the arrays; sizes beyond them take the last one with the same alignment."""
        over = np.maximum(channels - self._top, 0)
        return np.asarray(channels - -(-over // self._period) * self._period)


class Surface:
    """Latency of one signature on one target over its channels.

    Args:
        points: latencies in ms, > 0, by (channels in, channels out); at least one.
        axes: channel axes of the signature; with 1 both counts of every point are equal and only ``channels_in`` of a
            query counts.
        patterns: staircase and alignment along in and out if known (from ``lut.surface.estimate.detect``, for instance
        over all
            signatures of a kind); found from the points if None.

    Raises:
        InvalidKeyError: no points, or a latency that is not a finite number above zero.
    """

    def __init__(
        self, points: Mapping[Point, float], axes: int = 2, patterns: tuple[Pattern, Pattern] | None = None
    ) -> None:
        if not points:
            raise InvalidKeyError("Interpolation needs at least one measured point; found none: measure some first.")
        channels_in, channels_out, latency_ms = columns(points, axes)
        if min(channels_in.min(), channels_out.min()) < 1 or not np.all(np.isfinite(latency_ms) & (latency_ms > 0)):
            raise InvalidKeyError("Interpolation needs channels >= 1 and finite latencies above 0 ms.")
        self.axes = axes
        self.points = dict(points)
        self.patterns = patterns if patterns is not None else detect([points], axes)
        self.estimate = Estimate(channels_in, channels_out, latency_ms, self.patterns, axes)
        first, rows = np.unique(channels_in, return_inverse=True)
        second, places = np.unique(channels_out, return_inverse=True)
        self._axes = (_Axis(first, self.patterns[0]), _Axis(second, self.patterns[1]))
        self._grid = self._complete(first, second, rows, places, latency_ms)

    def _complete(self, first: Ints, second: Ints, rows: Ints, places: Ints, latency_ms: Floats) -> Floats:
        """Latencies of all crossings of measured rows and columns, (rows, columns)."""
        shape = (len(first), len(second))
        measured = np.full(shape, np.nan)
        measured[rows, places] = latency_ms
        grid = np.array(self.estimate(np.repeat(first, shape[1]), np.tile(second, shape[0])).reshape(shape))
        # What the measured points allow, if latency rises with channels: no less than any smaller point, no more than
        # any larger one.
        below = _accumulate(np.where(np.isnan(measured), -np.inf, measured))
        above = -_accumulate(-np.where(np.isnan(measured), np.inf, measured)[::-1, ::-1])[::-1, ::-1]
        if np.all(below <= above):
            grid = np.clip(_accumulate(grid), below, above)
        return np.where(np.isnan(measured), grid, measured)

    def evaluate(self, channels_in: ArrayLike, channels_out: ArrayLike) -> Evaluation:
        """Latency and slopes at any channel counts >= 0, whole or not; arrays are broadcast.

        Raises:
            InvalidKeyError: a count is negative or not finite.
        """
        first, second = np.broadcast_arrays(
            np.asarray(channels_in, dtype=np.float64), np.asarray(channels_out, dtype=np.float64)
        )
        if not (np.all(np.isfinite(first) & (first >= 0)) and np.all(np.isfinite(second) & (second >= 0))):
            raise InvalidKeyError("Channel counts must be finite numbers >= 0.")
        shape, first, second = first.shape, first.ravel(), second.ravel()
        if self.axes == 1:
            second = np.ones_like(first)
        # One pass for the value and both ends of both windows: a search asks every step, and passes cost, not places.
        windows = [float(pattern.step) for pattern in self.patterns[: self.axes]]
        ends = [self._ends(axis, first, second, window) for axis, window in enumerate(windows)]
        places = [(first, second)] + [place for pair in ends for place in pair]
        values = self._value(*(np.concatenate(sizes) for sizes in zip(*places, strict=True)))
        value, *sides = np.split(values, len(places))
        slopes = [np.zeros_like(value), np.zeros_like(value)]
        for axis, window in enumerate(windows):
            width = ends[axis][1][axis] - ends[axis][0][axis]
            slope = (sides[2 * axis + 1] - sides[2 * axis]) / width
            slopes[axis] = self._across_flats(axis, first, second, slope, window)
        return Evaluation(value.reshape(shape), slopes[0].reshape(shape), slopes[1].reshape(shape))

    def value(self, channels_in: float, channels_out: float) -> float:
        """Latency in ms at one place."""
        return float(self.evaluate(channels_in, channels_out).value_ms)

    @property
    def multiples(self) -> tuple[int, int]:
        """Widths the device likes: multiples of these, along in and out, waste no padding and run the fast kernel."""
        return self.patterns[0].step, self.patterns[1].step

    def _value(self, first: Floats, second: Floats) -> Floats:
        low_in, low_out = np.floor(first).astype(np.int64), np.floor(second).astype(np.int64)
        part_in, part_out = first - low_in, second - low_out
        up_in, up_out = low_in + 1, low_out + 1
        corners = self._whole(
            np.concatenate([low_in, up_in, low_in, up_in]), np.concatenate([low_out, low_out, up_out, up_out])
        ).reshape(4, -1)
        lower = corners[0] * (1 - part_in) + corners[1] * part_in
        upper = corners[2] * (1 - part_in) + corners[3] * part_in
        return np.asarray(lower * (1 - part_out) + upper * part_out)

    def _whole(self, channels_in: Ints, channels_out: Ints) -> Floats:
        """Value at whole channel counts, (n,)."""
        one, two = self._axes
        at, to = one.index(channels_in), two.index(channels_out)
        down, right = one.part[at], two.part[to]
        low, high = one.low[at], one.high[at]
        left = self._grid[low, two.low[to]] * (1 - down) + self._grid[high, two.low[to]] * down
        other = self._grid[low, two.high[to]] * (1 - down) + self._grid[high, two.high[to]] * down
        inside = left * (1 - right) + other * right
        # Within the measured range anchor and size are the same; beyond it the work model extends the edge.
        ragged = ~one.pattern.aligned(channels_in), ~two.pattern.aligned(channels_out)
        work = self.estimate.work
        size = work(one.pattern.level(channels_in), two.pattern.level(channels_out), *ragged)
        return np.asarray(inside * size / work(one.anchor[at], two.anchor[to], *ragged))

    def _ends(self, axis: int, first: Floats, second: Floats, window: float) -> list[tuple[Floats, Floats]]:
        """Both ends of a window around each place, along one axis."""
        centre = (first, second)[axis]
        sides = np.maximum(centre - window / 2, 0.0), centre + window / 2
        return [(side, second) if axis == 0 else (first, side) for side in sides]

    def _across_flats(self, axis: int, first: Floats, second: Floats, slope: Floats, window: float) -> Floats:
        """The slope, seen through wider windows where it is next to nothing."""
        expected = self.estimate.work.slopes(first, second)[axis]
        window = max(window, 4.0)
        flat: NDArray[np.bool_] = np.abs(slope) < _FLAT * expected
        while window <= _WIDEST and np.any(flat):
            low, high = self._ends(axis, first[flat], second[flat], window)
            slope = slope.copy()
            slope[flat] = (self._value(*high) - self._value(*low)) / (high[axis] - low[axis])
            flat = np.abs(slope) < _FLAT * expected
            window *= 2
        return slope


def _accumulate(grid: Floats) -> Floats:
    """Running maximum along both axes."""
    return np.asarray(np.maximum.accumulate(np.maximum.accumulate(grid, axis=0), axis=1))
