"""Where the taps of a mixture lie for one input size, and which of them can reach a sample at all.

A tap at *lag* l reads input sample ``j * stride + l`` for output j. Taps that reach none whatever j is are cropped:
that is exact, and bounds the combined kernel by about twice the input, however far kernels are dilated.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any

import torch

from compressor.nn.aggregated.candidates import Candidate, Ints, short


@dataclass(frozen=True)
class Span:
    """What is left of a candidate, per axis: its taps ``first`` to ``last`` (not counted), ``start`` on in the
    combined kernel, ``dilation`` apart."""

    first: Ints
    last: Ints
    start: Ints
    dilation: Ints

    @property
    def taps(self) -> tuple[Any, ...]:
        """Index of the candidate's kernel."""
        return ..., *(slice(a, b) for a, b in zip(self.first, self.last, strict=True))

    @property
    def places(self) -> tuple[Any, ...]:
        """Index of the combined kernel: the taps of ``w (x) P`` (equation 5) that are no zeros."""
        parts = zip(self.first, self.last, self.start, self.dilation, strict=True)
        return ..., *(slice(start, start + (b - a - 1) * d + 1, d) for a, b, start, d in parts)


@dataclass(frozen=True)
class Layout:
    """A mixture over inputs of one size, one number per spatial axis.

    Args:
        size: samples of the input.
        outputs: samples of the output.
        stride: samples from output to output.
        low, high: smallest and largest lag in the combined kernel; low is at most 0, high at least 0.
        spans: of each candidate, None for one that reaches no sample.
        lengths: samples that a transform takes, see ``fourier``.
    """

    size: Ints
    outputs: Ints
    stride: Ints
    low: Ints
    high: Ints
    spans: tuple[Span | None, ...]
    lengths: Ints

    @property
    def taps(self) -> Ints:
        """Taps of the combined kernel per axis."""
        return tuple(b - a + 1 for a, b in zip(self.low, self.high, strict=True))

    @property
    def last(self) -> Ints:
        """Place of the last output in the input per axis."""
        return tuple((m - 1) * s for m, s in zip(self.outputs, self.stride, strict=True))

    def lags(self, index: int) -> Ints:
        """Lag of the first tap that is left of a candidate."""
        span = self.spans[index]
        assert span is not None
        return tuple(a + b for a, b in zip(span.start, self.low, strict=True))


def fast_length(least: int) -> int:
    """The smallest even number from ``least`` on with no prime factor above 5, which transforms are quick at."""
    length = max(2, least + least % 2)
    while True:
        rest = length
        for prime in (2, 3, 5):
            while rest % prime == 0:
                rest //= prime
        if rest == 1:
            return length
        length += 2


def layout(
    candidates: tuple[Candidate, ...], lefts: tuple[Ints, ...], excess: Ints, stride: Ints, size: Ints
) -> Layout:
    """The layout of a mixture over inputs of ``size``; see ``candidates.lefts``. There is an output at least."""
    make = _layout if torch.compiler.is_compiling() else _remembered  # the compiler remembers by itself
    return make(candidates, lefts, excess, stride, size)


def _layout(
    candidates: tuple[Candidate, ...], lefts: tuple[Ints, ...], excess: Ints, stride: Ints, size: Ints
) -> Layout:
    outputs = tuple((n + more - 1) // s + 1 for n, more, s in zip(size, excess, stride, strict=True))
    assert min(outputs) > 0, f"no output for {short(size)}"
    bounds = []
    for axis, (n, m, s) in enumerate(zip(size, outputs, stride, strict=True)):
        low = min(-left[axis] for left in lefts)
        high = max(each.extent[axis] - 1 - left[axis] for each, left in zip(candidates, lefts, strict=True))
        bounds.append((min(0, max(low, -(m - 1) * s)), max(0, min(high, n - 1))))
    lows, highs = tuple(low for low, _ in bounds), tuple(high for _, high in bounds)
    spans = tuple(_span(each, left, lows, highs) for each, left in zip(candidates, lefts, strict=True))
    lengths = tuple(
        fast_length(max((m - 1) * s + high + 1, n - low))
        for n, m, s, low, high in zip(size, outputs, stride, lows, highs, strict=True)
    )
    return Layout(size, outputs, stride, lows, highs, spans, lengths)


_remembered = functools.lru_cache(maxsize=1024)(_layout)


def _span(candidate: Candidate, left: Ints, low: Ints, high: Ints) -> Span | None:
    axes = []
    for k, d, begins, least, most in zip(candidate.kernel_size, candidate.dilation, left, low, high, strict=True):
        first = max(0, -((-least - begins) // d))  # the first tap t with t * d - begins >= least
        last = min(k, (most + begins) // d + 1)
        if first >= last:
            return None
        axes.append((first, last, first * d - begins - least, d))
    return Span(*(tuple(part) for part in zip(*axes, strict=True)))
