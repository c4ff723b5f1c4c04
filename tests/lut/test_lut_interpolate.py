from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from lut import InvalidKeyError, Measurement
from lut.surface.estimate import detect
from lut.surface.interpolate import Surface, usable
from lut.surface.steps import SMOOTH, Pattern
from tests.lut.lut_devices import noisy, ragged, smooth, stairs, took

channels = st.integers(1, 300)
places = st.tuples(channels, channels)
latencies = st.floats(1e-3, 1e3)
tables = st.dictionaries(places, latencies, min_size=1, max_size=25)
patterns = st.sampled_from([SMOOTH, Pattern(step=8), Pattern(step=16), Pattern(4, 16), Pattern(8, 32, 32)])


@st.composite
def rising_tables(draw: st.DrawFn) -> dict[tuple[int, int], float]:
    """Some points of a function that rises along both axes, in uneven steps, with flats."""
    first = sorted(draw(st.sets(channels, min_size=2, max_size=6)))
    second = sorted(draw(st.sets(channels, min_size=2, max_size=6)))
    rises = draw(
        st.lists(
            st.one_of(st.just(0.0), st.floats(0.01, 5.0)),
            min_size=len(first) * len(second),
            max_size=len(first) * len(second),
        )
    )
    grid = 0.1 + np.cumsum(np.cumsum(np.reshape(rises, (len(first), len(second))), axis=0), axis=1)
    points = {(one, two): float(grid[i, j]) for i, one in enumerate(first) for j, two in enumerate(second)}
    kept = draw(st.sets(st.sampled_from(sorted(points)), min_size=1))
    return {point: points[point] for point in sorted(kept)}


def ends(points: dict[tuple[int, int], float], axis: int) -> tuple[int, int]:
    sizes = [point[axis] for point in points]
    return min(sizes), max(sizes)


@given(tables, patterns, patterns)
@settings(deadline=None, max_examples=60)
def test_values_are_exact_at_the_points(
    points: dict[tuple[int, int], float], along_in: Pattern, along_out: Pattern
) -> None:
    where = np.array(list(points))
    for chosen in (None, (along_in, along_out)):
        values = Surface(points, patterns=chosen).evaluate(where[:, 0], where[:, 1]).value_ms
        np.testing.assert_allclose(values, list(points.values()), rtol=1e-9)


@given(st.dictionaries(channels, latencies, min_size=1, max_size=15), patterns)
@settings(deadline=None, max_examples=40)
def test_values_are_exact_along_a_single_axis(found: dict[int, float], pattern: Pattern) -> None:
    surface = Surface({(size, size): value for size, value in found.items()}, 1, (pattern, SMOOTH))
    result = surface.evaluate(list(found), 5.0)
    np.testing.assert_allclose(result.value_ms, list(found.values()), rtol=1e-9)
    assert not result.d_out.any()


@given(rising_tables(), st.integers(0, 2**32 - 1))
@settings(deadline=None, max_examples=80)
def test_rising_data_give_rising_values_and_slopes_that_never_fall(
    points: dict[tuple[int, int], float], seed: int
) -> None:
    random = np.random.default_rng(seed)
    surface = Surface(points)
    low, high = np.array([ends(points, 0), ends(points, 1)]).T
    smaller = random.uniform(low, high, (300, 2))
    larger = smaller + random.uniform(0, 1, (300, 2)) * (high - smaller) * random.integers(0, 2, (300, 2))
    before, after = surface.evaluate(*smaller.T), surface.evaluate(*larger.T)
    scale = max(points.values())
    assert np.all(after.value_ms >= before.value_ms - 1e-9 * scale)
    if all(pattern == SMOOTH for pattern in surface.patterns):
        inner = np.all((smaller > low + 1) & (smaller < high - 1), axis=1)
        assert np.all(before.d_in[inner] >= -1e-9 * scale)
        assert np.all(before.d_out[inner] >= -1e-9 * scale)


@given(tables, st.integers(0, 2**32 - 1))
@settings(deadline=None, max_examples=60)
def test_without_a_staircase_the_slope_is_the_finite_difference(
    points: dict[tuple[int, int], float], seed: int
) -> None:
    surface = Surface(points, patterns=(SMOOTH, SMOOTH))
    random = np.random.default_rng(seed)
    for axis in (0, 1):
        nodes = np.array(sorted({point[axis] for point in points}))
        place = random.uniform(2, 310, (200, 2))
        place[:, 1 - axis] = random.uniform(*ends(points, 1 - axis), 200)
        # Within half a channel of a measured row the slope is an average over both sides.
        place = place[np.min(np.abs(place[:, axis, None] - nodes), axis=1) > 0.51]
        assume(len(place))
        shift = np.eye(2)[axis] * 1e-3
        first, second = surface.evaluate(*(place - shift).T), surface.evaluate(*(place + shift).T)
        difference = (second.value_ms - first.value_ms) / 2e-3
        result = surface.evaluate(*place.T)
        slope = result[1 + axis]
        expected = surface.estimate.work.slopes(*place.T)[axis]
        plain = np.abs(difference) > 0.11 * expected  # elsewhere it counts as flat, and the window is wider
        np.testing.assert_allclose(
            slope[plain], difference[plain], rtol=1e-4, atol=1e-7 * float(np.max(result.value_ms))
        )


def test_the_slope_across_a_flat_is_that_of_the_envelope() -> None:
    grid = (8, 16, 17, 32, 33, 48, 64, 65, 128, 129, 256, 512)
    surface = Surface({(one, two): stairs(one, two) for one in grid for two in grid})
    assert surface.patterns == (Pattern(step=16), Pattern(step=32))
    assert surface.multiples == (16, 32)
    one, two = np.meshgrid(np.arange(40, 480, 3.7), np.arange(40, 480, 5.3))
    result = surface.evaluate(one, two)
    assert result.value_ms.shape == one.shape
    # The staircase of smooth(up(in, 16), up(out, 32)) climbs as smooth does: its slopes at the padded size paid for.
    paid_one, paid_two = (16 * np.ceil(one / 16), 32 * np.ceil(two / 32))
    np.testing.assert_allclose(result.d_in, 3e-5 + 6e-6 * paid_two, rtol=0.12)
    np.testing.assert_allclose(result.d_out, 4e-5 + 6e-6 * paid_one, rtol=0.12)


def test_a_staircase_is_reproduced_from_a_few_of_its_points() -> None:
    grid = (8, 16, 17, 32, 33, 48, 64, 65, 128, 129, 256, 512)
    surface = Surface({(one, two): stairs(one, two) for one in grid for two in grid})
    one, two = np.meshgrid(np.arange(8, 513), np.arange(8, 513, 7))
    truth = np.vectorize(stairs)(one, two)
    np.testing.assert_allclose(surface.evaluate(one, two).value_ms, truth, rtol=1e-6)


def test_a_flat_table_without_a_staircase_still_has_a_slope() -> None:
    points = {(32, 32): 1.0, (40, 32): 1.0, (48, 32): 2.0, (64, 32): 3.0}
    slope = Surface(points, patterns=(SMOOTH, SMOOTH)).evaluate([34.0, 36.0, 38.0], 32).d_in
    assert np.all(slope > 0.005)


def test_sizes_of_a_slower_kernel_are_told_apart() -> None:
    sizes = (16, 17, 32, 63, 64, 65, 66, 68, 70, 72, 80, 128, 255, 256)
    points = {(one, two): ragged(one, two) for one in sizes for two in (16, 64, 65, 256)}
    surface = Surface(points)
    assert surface.patterns[0] == Pattern(4, 16)
    for size in (60, 61, 100, 101, 200, 203):
        assert surface.value(size, 64) == pytest.approx(ragged(size, 64), rel=0.03)


@pytest.mark.parametrize("step", [1, 8, 16, 32, 64])
def test_steps_are_found_and_noise_adds_none(step: int) -> None:
    sizes = (32, 64, 65, 66, 68, 72, 80, 96, 97, 100, 128, 129, 192, 256)

    def device(one: int, two: int) -> float:
        return smooth(-(-one // step) * step, two)

    exact = {(one, two): device(one, two) for one in sizes for two in (64, 256)}
    assert detect([exact])[0] == Pattern(step=step)
    # In noise a neighbouring step may fit as well; what counts is that predictions hold.
    shaken = Surface({point: noisy(*point, value, 0.01, 1) for point, value in exact.items()})
    inside = np.arange(32, 257)
    truth = np.array([device(int(one), 128) for one in inside])
    assert np.mean(np.abs(shaken.evaluate(inside, 128).value_ms / truth - 1)) < 0.025
    assert (shaken.patterns[0] == SMOOTH) == (step == 1)


def test_steps_are_found_over_several_signatures_together() -> None:
    whole = {(one, 64): stairs(one, 64) for one in (16, 64, 65, 72, 80, 96, 128)}
    parts = [dict(list(whole.items())[:4]), dict(list(whole.items())[3:])]
    assert detect(parts)[0].step == 16
    assert detect([{}, {(8, 8): 1.0}]) == (SMOOTH, SMOOTH)


@given(tables, st.integers(2, 8))
@settings(deadline=None, max_examples=40)
def test_beyond_the_points_latency_grows_with_work(points: dict[tuple[int, int], float], factor: int) -> None:
    surface = Surface(points, patterns=(SMOOTH, Pattern(step=16)))
    first, second = ends(points, 0)[1], ends(points, 1)[1]
    edge = surface.value(first, second)
    beyond = surface.value(factor * first, factor * second)
    assert edge * (1 - 1e-9) <= beyond <= edge * 2 * (factor + 1) ** 2 * 70
    assert math.isfinite(beyond)


def test_points_that_are_mostly_ragged_do_not_make_aligned_sizes_free() -> None:
    points = {(3, 36): 1.0, (49, 2): 2.0, (300, 1): 1.0}
    surface = Surface(points, patterns=(Pattern(4, 16), Pattern(4, 16)))
    result = surface.evaluate(*np.meshgrid(np.arange(1, 400, 9), np.arange(1, 400, 9)))
    assert np.all(np.isfinite(result.value_ms) & (result.value_ms > 0))


def test_a_single_point_is_extended_in_proportion_to_work() -> None:
    surface = Surface({(64, 32): 2.0})
    assert surface.value(128, 64) == pytest.approx(8.0)
    assert surface.value(32, 32) == pytest.approx(1.0)
    assert Surface({(64, 64): 2.0}, axes=1).value(16, 16) == pytest.approx(0.5)


def test_bad_input_is_refused() -> None:
    with pytest.raises(InvalidKeyError, match="at least one"):
        Surface({})
    with pytest.raises(InvalidKeyError, match="above 0"):
        Surface({(8, 8): 0.0})
    surface = Surface({(8, 8): 1.0})
    for wrong in (-1.0, math.nan, math.inf):
        with pytest.raises(InvalidKeyError):
            surface.evaluate(wrong, 8.0)


def test_refused_points_are_left_out_and_noisy_ones_serve_only_if_need_be() -> None:
    noise = Measurement(5.0, 0.6, 5, "noisy")
    few = {(8, 8): took(1.0), (16, 8): noise, (32, 8): Measurement.refused("no")}
    assert usable(few) == {(8, 8): 1.0, (16, 8): 5.0}
    assert usable({**few, (64, 8): took(2.0), (96, 8): took(3.0)}) == {(8, 8): 1.0, (64, 8): 2.0, (96, 8): 3.0}
