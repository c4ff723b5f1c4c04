"""An estimate of the latency where nothing was measured: a work model, and a smooth correction through the points.

Work model: ``a + b*in + c*out + d*in*out`` with coefficients that are not negative: overhead, traffic in, traffic out,
arithmetic (and more arithmetic where a size is ragged). It is what latencies are extended with beyond the measured
range.

Correction: the logarithm of measured over modelled latency, spread over all channel counts by Gaussian process
regression with the kernel ``k(in) + k(out) + k(in)*k(out)``, ``k`` falling exponentially with the ratio of the sizes
and by a factor between kernel families. One measured row and one column so say much about the whole plane. It passes
through the points, and its standard deviation says where another measurement would tell the most.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np

from lut.key import Point
from lut.surface.steps import SMOOTH, Flags, Floats, Ints, Pattern, candidates

_LENGTH = 1.5  # in natural logarithms of channels: about a factor of four and a half
_FAMILY = 0.6  # correlation between an aligned and a ragged size
_PRODUCT = 0.3  # weight of what is particular to a pair (in, out), against what is common to a row or column
_NOISE = 1e-3  # of the correction's variance: points on one level may differ by noise
_GAIN = 0.05  # each step of complexity must lower the error by this fraction ...
_FLOOR = 0.0005  # ... and by this much, or it explains noise
_STARTS = 3
_CLIP = 0.5  # a single wild point must not decide


def _nonnegative(matrix: Floats) -> Floats:
    """The x >= 0 that minimises ``|matrix @ x - 1|`` (Lawson and Hanson's active set method), (columns,)."""
    gram, right = matrix.T @ matrix, matrix.sum(axis=0)
    ridge = 1e-9 * np.trace(gram)
    count = len(right)
    solution, active = np.zeros(count), np.zeros(count, dtype=bool)
    for _ in range(3 * count):
        gradient = np.where(active, -np.inf, right - gram @ solution)
        enter = int(np.argmax(gradient))
        if gradient[enter] <= 1e-6 * max(float(right.max()), 1e-300):
            break
        active[enter] = True
        while True:
            chosen = np.flatnonzero(active)
            trial = np.linalg.solve(gram[np.ix_(chosen, chosen)] + ridge * np.eye(len(chosen)), right[chosen])
            if trial.min() > 0:
                solution[:] = 0.0
                solution[chosen] = trial
                break
            falling = trial <= 0
            share = np.min(solution[chosen][falling] / (solution[chosen][falling] - trial[falling] + 1e-300))
            solution[chosen] += share * (trial - solution[chosen])
            active &= solution > 1e-12
            solution[~active] = 0.0
            if not active.any():
                break
    return solution


class WorkModel:
    """Latency from sizes, fitted to relative errors with coefficients >= 0.

    Args:
        channels_in, channels_out: measured points, (n,).
        latency_ms: their latencies, (n,), > 0.
        patterns: along in and out; sizes are levels, and ragged sizes have an arithmetic term of their own.
        axes: with 1, ``channels_out`` is ignored.
    """

    def __init__(
        self, channels_in: Ints, channels_out: Ints, latency_ms: Floats, patterns: tuple[Pattern, Pattern], axes: int
    ) -> None:
        self.axes, self._patterns = axes, patterns
        one, two = patterns
        ragged = ~one.aligned(channels_in), ~two.aligned(channels_out)
        terms = self._terms(one.level(channels_in), two.level(channels_out), *ragged)
        scale = np.maximum(terms.max(axis=0), 1e-12)
        relative = terms / scale / latency_ms[:, None]
        found = _nonnegative(relative)
        base = 2 if axes == 1 else 4
        if not found[:base].any():  # all was put down to ragged sizes, and aligned ones would cost nothing
            found[:base], found[base:] = _nonnegative(relative[:, :base]), 0.0
        self._coefficients = found / scale

    def _terms(self, sizes_in: Ints, sizes_out: Ints, ragged_in: Flags, ragged_out: Flags) -> Floats:
        # Arithmetic first: with a single point, where every term fits as well, latency is proportional to work.
        first, second = sizes_in.astype(np.float64), sizes_out.astype(np.float64)
        work = first if self.axes == 1 else first * second
        terms = [work, np.ones_like(first)] + ([] if self.axes == 1 else [first, second])
        for pattern, ragged in zip(self._patterns, (ragged_in, ragged_out), strict=True):
            terms += [work * ragged] if pattern.align > 1 else []
        return np.stack(terms, axis=-1)

    def __call__(self, sizes_in: Ints, sizes_out: Ints, ragged_in: Flags, ragged_out: Flags) -> Floats:
        """Latency in ms for levels, and whether they stand for ragged sizes; all (n,)."""
        return np.asarray(self._terms(sizes_in, sizes_out, ragged_in, ragged_out) @ self._coefficients)

    def slopes(self, sizes_in: Floats, sizes_out: Floats) -> tuple[Floats, Floats]:
        """Derivatives in ms per channel, along in and out, between aligned sizes; never negative."""
        found = self._coefficients
        if self.axes == 1:
            return np.full_like(sizes_in, found[0]), np.zeros_like(sizes_in)
        return found[2] + found[0] * sizes_out, found[3] + found[0] * sizes_in


class Estimate:
    """Latency anywhere, from scattered points.

    Args:
        channels_in, channels_out: measured points, (n,).
        latency_ms: (n,), > 0.
        patterns: along in and out.
        axes: channel axes of the signature.
    """

    def __init__(
        self, channels_in: Ints, channels_out: Ints, latency_ms: Floats, patterns: tuple[Pattern, Pattern], axes: int
    ) -> None:
        self.patterns = patterns
        self.work = WorkModel(channels_in, channels_out, latency_ms, patterns, axes)
        self._axes = axes
        self._points = (channels_in, channels_out)
        residual = np.log(latency_ms / self._modelled(channels_in, channels_out))
        self._offset = float(residual.mean())
        covariance = self._kernel(*self._points) + _NOISE * np.eye(len(latency_ms))
        self._inverse = np.linalg.inv(covariance)
        self._weights = self._inverse @ (residual - self._offset)

    def surplus(self) -> Floats:
        """Logarithm of each measured latency over what all the other points predict there, (n,)."""
        return np.asarray(self._weights / np.diag(self._inverse))

    def _axis_kernel(self, axis: int, channels: Ints) -> Floats:
        pattern, measured = self.patterns[axis], self._points[axis]
        distance = np.abs(np.log(pattern.level(channels))[:, None] - np.log(pattern.level(measured))[None, :])
        same = pattern.aligned(channels)[:, None] == pattern.aligned(measured)[None, :]
        return np.asarray(np.exp(-distance / _LENGTH) * np.where(same, 1.0, _FAMILY))

    def _kernel(self, channels_in: Ints, channels_out: Ints) -> Floats:
        first = self._axis_kernel(0, channels_in)
        if self._axes == 1:
            return first
        second = self._axis_kernel(1, channels_out)
        return first + second + _PRODUCT * first * second

    def __call__(self, channels_in: Ints, channels_out: Ints) -> Floats:
        """Latency in ms at whole channel counts (both of shape (n,))."""
        correction = self._kernel(channels_in, channels_out) @ self._weights + self._offset
        return np.asarray(self._modelled(channels_in, channels_out) * np.exp(correction))

    def _modelled(self, channels_in: Ints, channels_out: Ints) -> Floats:
        one, two = self.patterns
        ragged = ~one.aligned(channels_in), ~two.aligned(channels_out)
        return self.work(one.level(channels_in), two.level(channels_out), *ragged)

    def doubt(self, channels_in: Ints, channels_out: Ints) -> Floats:
        """How little the points say about each place, >= 0: standard deviation of the correction, up to a factor."""
        kernel = self._kernel(channels_in, channels_out)
        own = 1.0 if self._axes == 1 else 2.0 + _PRODUCT
        return np.asarray(np.sqrt(np.maximum(own - np.einsum("ij,jk,ik->i", kernel, self._inverse, kernel), 0.0)))


Pair = tuple[Pattern, Pattern]
Columns = tuple[Ints, Ints, Floats]  # channels in, channels out, latency in ms, each (n,)


def columns(points: Mapping[Point, float], axes: int) -> Columns:
    """Points as arrays; with one axis the second count is 1."""
    where = np.array(list(points), dtype=np.int64).reshape(-1, 2)
    second = where[:, 1] if axes == 2 else np.ones(len(where), dtype=np.int64)
    return where[:, 0], second, np.array(list(points.values()), dtype=np.float64)


def rises(channels_in: Ints, channels_out: Ints, latency_ms: Floats) -> bool:
    """Whether no point is faster than one that is no larger along either axis."""
    larger = (channels_in[:, None] >= channels_in) & (channels_out[:, None] >= channels_out)
    return not bool(np.any(larger & (latency_ms[:, None] < latency_ms)))


def detect(tables: Iterable[Mapping[Point, float]], axes: int = 2) -> Pair:
    """The patterns, along in and out, under which each point is best predicted by the others.

    The points of several signatures of one kind may be pooled: one mapping each. A more complex pattern must earn its
    place, so noise does not grow steps. Rising data never get an alignment: a split into families would make the
    interpolation fall where the data rise.
    """
    data = [columns(points, axes) for points in tables if len(points) >= 4]
    if not data:
        return SMOOTH, SMOOTH
    options = candidates(not all(rises(*part) for part in data))
    scores: dict[Pair, float] = {}

    def score(pair: Pair) -> float:
        if pair not in scores:
            errors = np.concatenate([np.abs(Estimate(*part, pair, axes).surplus()) for part in data])
            complexity = pair[0].complexity + pair[1].complexity
            scores[pair] = float(np.mean(np.minimum(errors, _CLIP))) * (1 + _GAIN * complexity) + _FLOOR * complexity
        return scores[pair]

    if axes == 1:
        return min(((pattern, SMOOTH) for pattern in options), key=score)
    # All pairs of staircases; from the best few one axis at a time, alignment included, until nothing gets better.
    stairs = candidates(False)
    starts = sorted(((one, two) for one in stairs for two in stairs), key=score)[:_STARTS]
    for pair in starts:
        while True:
            better = min(((pattern, pair[1]) for pattern in options), key=score)
            better = min(((better[0], pattern) for pattern in options), key=score)
            if score(better) >= score(pair):
                break
            pair = better
    return min(scores, key=score)
