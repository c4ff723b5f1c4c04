"""Robust summaries of timings: medians, quantiles, and an interval for a median that assumes no distribution."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from profilers.base import RunnerInfo, Samples, Timing
from profilers.contention import BUSY

#: A run this many interquartile ranges above the third quartile is an outlier (Tukey's outer fence).
OUTLIER_RANGES = 3.0
#: Runs that take less together than this may fall between two turns of other processes, and what was waited before is
#: booked on them.
_LONG_MS = 50.0


@dataclass(frozen=True)
class Ratio:
    """Latency of one network over that of another; below 1 is faster.

    Attributes:
        value: median over rounds of the ratio within the round, or over loads.
        low, high: interval that holds the true median with probability ``confidence``.
        rounds: number of rounds or loads.
    """

    value: float
    low: float
    high: float
    confidence: float
    rounds: int

    @property
    def verdict(self) -> str:
        """ "faster", "slower", or "no measurable difference" when 1 lies in the interval."""
        if self.high < 1.0:
            return "faster"
        if self.low > 1.0:
            return "slower"
        return "no measurable difference"

    def to_json(self) -> dict[str, Any]:
        """A JSON-able dictionary."""
        return {**asdict(self), "verdict": self.verdict}


def summarise(samples: Samples, info: RunnerInfo) -> Timing:
    """A :class:`Timing` of at least one run."""
    times = np.asarray(samples.latency_ms, dtype=np.float64)
    p5, q1, median, q3, p90, p95, p99 = (float(v) for v in np.percentile(times, [5, 25, 50, 75, 90, 95, 99]))
    fence = q3 + OUTLIER_RANGES * (q3 - q1)
    return Timing(
        **asdict(info),
        repeats=int(times.size),
        median_ms=median,
        mean_ms=float(times.mean()),
        min_ms=float(times.min()),
        p5_ms=p5,
        p90_ms=p90,
        p95_ms=p95,
        p99_ms=p99,
        spread=(q3 - q1) / median if median > 0 else 0.0,
        outliers=int((times > fence).sum()),
        throughput_per_s=info.batch / median * 1e3 if median > 0 else 0.0,
        enqueue_ms=float(np.median(samples.enqueue_ms)) if samples.enqueue_ms else None,
        compute_ms=float(np.median(samples.compute_ms)) if samples.compute_ms else None,
    )


def quiet_ms(samples: Samples) -> float:
    """What a run takes when nothing disturbs it: the lower quartile, of processor time where that was taken.

    Interruptions only ever add time. On one thread, processor time leaves out what other programs took. On several,
    where these took so much that no run was spared, the mean without the share of the time that was waited comes
    closest.
    """
    if not samples.cpu_ms and samples.waited > BUSY and sum(samples.latency_ms) > _LONG_MS:
        return float(np.mean(samples.latency_ms)) * (1.0 - samples.waited)
    return float(np.percentile(samples.cpu_ms or samples.latency_ms, 25))


def median_interval(values: Sequence[float], confidence: float = 0.95) -> tuple[float, float, float]:
    """Bounds for the median of what ``values`` were drawn from, by the sign test; returns low, high, confidence.

    The k-th smallest and k-th largest value enclose the median with probability 1 - 2 P(Binomial(n, 1/2) < k).
    With fewer than six values 95 % cannot be had; then the whole range comes back with the confidence it does have.
    """
    ordered = sorted(values)
    count = len(ordered)
    best = (ordered[0], ordered[-1], 1 - 2 * 0.5**count if count > 1 else 0.0)
    # Whole numbers: of a thousand values and more, neither the ways nor their share fit into a float by themselves.
    ways, all_ways = 0, 2**count
    for k in range(1, count // 2 + 1):
        ways += math.comb(count, k - 1)
        below = ways / all_ways  # P(Binomial(count, 1/2) < k)
        if 1 - 2 * below < confidence:
            break
        best = (ordered[k - 1], ordered[count - k], 1 - 2 * below)
    return best


def paired_ratio(bursts: Sequence[float], baseline: Sequence[float]) -> Ratio:
    """Ratio of two networks measured in turn, given the median of each burst."""
    return middle_ratio(paired_ratios(bursts, baseline))


def paired_ratios(bursts: Sequence[float], baseline: Sequence[float]) -> list[float]:
    """Ratios of two networks measured in turn, one for each burst.

    In the order A B A B each B stands between two A, so it is divided by their mean: a machine that slowly warms up or
    slows down then cancels out. The last B has only the A before it.
    """
    ratios = []
    for index, value in enumerate(bursts):
        around = baseline[index : index + 2]
        ratios.append(value / (sum(around) / len(around)))
    return ratios


def middle_ratio(ratios: Sequence[float]) -> Ratio:
    """The median of ratios that were found independently of each other."""
    low, high, confidence = median_interval(ratios)
    return Ratio(float(np.median(ratios)), low, high, confidence, len(ratios))
