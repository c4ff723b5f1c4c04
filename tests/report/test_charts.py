from __future__ import annotations

import itertools

import pytest

from compressor.report.page import charts


@pytest.mark.parametrize(
    ("low", "high"), [(0, 1), (0, 0.37), (0, 2.13), (0, 4700), (3, 3), (0, 0), (100, 105), (0, 1e-6)]
)
def test_ticks_are_round_and_enclose_the_data(low: float, high: float) -> None:
    ticks = charts.nice_ticks(low, high)
    assert ticks[0] <= low
    assert ticks[-1] >= high * (1 - 1e-9)
    assert 2 <= len(ticks) <= 12
    steps = {round((b - a) / (ticks[1] - ticks[0]), 6) for a, b in itertools.pairwise(ticks)}
    assert steps == {1.0}


def test_bar_stays_in_its_track() -> None:
    assert 'width="1000"' in charts.bar(1.7)
    assert 'width="0"' in charts.bar(-0.2)
    assert "limit 50.0%" in charts.bar(0.4, limit=0.5)


def test_line_chart_of_one_step_and_of_equal_steps() -> None:
    for points in ([(0.0, 0.5)], [(3.0, 0.5), (3.0, 0.6)]):
        assert "polyline" in charts.lines([("a", "accent", points)], [("accent", 0.5)], "step")
