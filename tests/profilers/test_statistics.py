from __future__ import annotations

import pytest

from profilers.base import RunnerInfo, Samples
from profilers.stats import Ratio, median_interval, paired_ratio, summarise

INFO = RunnerInfo("r", "1", "d", "fp32", 2, 4)


def test_summary_of_known_numbers() -> None:
    timing = summarise(Samples([float(v) for v in range(1, 102)]), INFO)
    assert timing.median_ms == 51.0
    assert timing.mean_ms == 51.0
    assert (timing.min_ms, timing.p5_ms, timing.p90_ms, timing.p95_ms, timing.p99_ms) == (1.0, 6.0, 91.0, 96.0, 100.0)
    assert timing.spread == pytest.approx(50 / 51)
    assert timing.outliers == 0
    assert timing.repeats == 101
    assert timing.throughput_per_s == pytest.approx(4 / 0.051)
    assert timing.compute_ms is None


def test_outliers_are_counted_and_do_not_move_the_median() -> None:
    timing = summarise(Samples([1.0, 1.1, 0.9, 1.0, 1.05, 0.95, 1.0, 50.0]), INFO)
    assert timing.outliers == 1
    assert timing.median_ms == 1.0
    assert timing.mean_ms > 7


def test_device_times_come_through() -> None:
    timing = summarise(Samples([3.0], [1.0], [2.0]), INFO)
    assert (timing.enqueue_ms, timing.compute_ms) == (1.0, 2.0)


def test_median_interval_of_thousands_of_values() -> None:
    """A quick network is timed so often; about sqrt(n) values lie between the bounds and the median on either side."""
    for count in (1029, 1030, 1031, 5000):
        low, high, confidence = median_interval([float(v) for v in range(count)])
        assert 0.95 <= confidence < 0.96
        middle = (count - 1) / 2
        assert low + high == 2 * middle
        assert 0.9 * count**0.5 < middle - low < 1.1 * count**0.5


def test_median_interval_is_the_sign_test() -> None:
    assert median_interval([2.0]) == (2.0, 2.0, 0.0)
    low, high, confidence = median_interval([3.0, 1.0, 2.0])  # too few: the whole range, and it says so
    assert (low, high) == (1.0, 3.0)
    assert confidence == 0.75
    low, high, confidence = median_interval([float(v) for v in range(1, 11)])
    assert (low, high) == (2.0, 9.0)  # Conover, Practical Nonparametric Statistics: n = 10 gives 97.9 %
    assert confidence == pytest.approx(0.978516, abs=1e-6)


def test_linear_drift_cancels_in_the_paired_ratio() -> None:
    """Both slow down steadily: in the order A B A B each B lies exactly between its neighbours."""
    clock = [1.0 + 0.1 * step for step in range(21)]
    slow = [10 * factor for factor in clock[0::2]]
    fast = [5 * factor for factor in clock[1::2]]
    ratio = paired_ratio(fast, slow)
    assert ratio.value == pytest.approx(0.5)
    assert ratio.high - ratio.low < 1e-12
    assert ratio.rounds == 10


@pytest.mark.parametrize(
    ("low", "high", "verdict"), [(0.5, 0.6, "faster"), (1.1, 1.2, "slower"), (0.9, 1.1, "no measurable difference")]
)
def test_verdict_needs_the_whole_interval(low: float, high: float, verdict: str) -> None:
    assert Ratio((low + high) / 2, low, high, 0.95, 10).verdict == verdict
