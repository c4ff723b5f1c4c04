from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest

from lut import InvalidKeyError
from lut.surface.refine import Domain, Refinement, Refiner, refine
from lut.surface.steps import Pattern
from tests.lut.lut_devices import noisy, ragged, smooth, stairs

Device = Callable[[int, int], float]
WIDE = Domain((8, 512), (8, 512))
NARROW = Domain((16, 64), (16, 256))


def mean_error(result: Refinement, device: Device, domain: Domain) -> float:
    random = np.random.default_rng(0)
    one = random.integers(domain.channels_in[0], domain.channels_in[1] + 1, 500)
    two = one if domain.axes == 1 else random.integers(domain.channels_out[0], domain.channels_out[1] + 1, 500)
    truth = np.array([device(int(first), int(second)) for first, second in zip(one, two, strict=True)])
    values = result.surface(domain.axes).evaluate(one, two).value_ms
    return float(np.mean(np.abs(values - truth) / truth))


@pytest.mark.parametrize("domain", [WIDE, NARROW])
@pytest.mark.parametrize(("device", "most"), [(smooth, 30), (stairs, 36), (ragged, 55)])
def test_few_points_reach_three_percent(device: Device, most: int, domain: Domain) -> None:
    result = refine(device, domain)
    assert result.stopped == "tolerance"
    assert result.error < 0.03
    assert result.measured <= most
    assert mean_error(result, device, domain) < 0.03


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_noise_does_not_hide_the_stairs(seed: int) -> None:
    result = refine(lambda one, two: noisy(one, two, stairs(one, two), 0.01, seed), WIDE)
    assert result.measured <= 48
    assert mean_error(result, stairs, WIDE) < 0.03


def test_one_axis_needs_fewer_points() -> None:
    domain = Domain((16, 1024), axes=1)

    def depthwise(one: int, two: int) -> float:
        assert one == two
        return 0.01 + 4e-5 * (-(-one // 16) * 16)

    result = refine(depthwise, domain)
    assert result.measured <= 26
    assert mean_error(result, depthwise, domain) < 0.03


def test_the_error_it_states_is_about_the_error_it_makes() -> None:
    stated, made = [], []
    for seed in range(4):

        def device(one: int, two: int, seed: int = seed) -> float:
            return noisy(one, two, stairs(one, two), 0.02, seed)

        result = refine(device, WIDE, max_points=40)
        stated.append(result.error)
        made.append(mean_error(result, device, WIDE))
    assert 0.4 < np.mean(stated) / np.mean(made) < 2.5


def test_the_same_device_is_asked_for_the_same_points() -> None:
    assert refine(ragged, WIDE) == refine(ragged, WIDE)


def test_an_interrupted_run_goes_on_without_measuring_anything_twice() -> None:
    whole = refine(ragged, WIDE)
    first = refine(ragged, WIDE, max_points=20)
    assert (first.stopped, first.measured) == ("points", 20)
    asked: list[tuple[int, int]] = []

    def device(one: int, two: int) -> float:
        asked.append((one, two))
        return ragged(one, two)

    second = refine(device, WIDE, known=first.points)
    assert not set(asked) & set(first.points)
    assert second.measured <= whole.measured - 15
    assert set(first.points) <= set(second.points)
    assert mean_error(second, ragged, WIDE) < 0.03


def test_points_of_another_model_are_used() -> None:
    other = refine(stairs, Domain((16, 384), (16, 384)))
    result = refine(stairs, WIDE, known=other.points)
    assert result.measured <= 16
    assert mean_error(result, stairs, WIDE) < 0.03


def test_known_patterns_save_the_probes() -> None:
    result = refine(stairs, WIDE, patterns=(Pattern(step=16), Pattern(step=32)))
    assert result.measured <= 22
    assert mean_error(result, stairs, WIDE) < 0.03


def test_refused_points_are_recorded_and_gone_around() -> None:
    def device(one: int, two: int) -> float | None:
        return None if one > 400 and two > 400 else smooth(one, two)

    result = refine(device, WIDE)
    assert (512, 512) in result.refused
    assert all(one > 400 and two > 400 for one, two in result.refused)
    assert not set(result.refused) & set(result.points)
    assert result.stopped == "tolerance"


def test_a_device_that_refuses_everything_is_not_asked_for_long() -> None:
    result = refine(lambda one, two: None, WIDE)
    assert result.stopped == "refused"
    assert result.points == {}
    assert result.patterns is None
    assert math.isnan(result.error)
    assert result.measured <= 10


def test_time_and_points_are_kept_to() -> None:
    seconds = iter(range(1000))
    result = refine(ragged, WIDE, budget_s=10, clock=lambda: float(next(seconds)))
    assert result.stopped == "time"
    assert result.measured == 9
    assert refine(ragged, WIDE, max_points=3).measured == 3


def test_a_small_range_is_measured_out() -> None:
    result = refine(ragged, Domain((8, 9), (16, 16)), tolerance=1e-9)
    assert result.stopped == "exhausted"
    assert set(result.points) == {(8, 16), (9, 16)}
    single = refine(ragged, Domain((3, 3), (5, 5)))
    assert set(single.points) == {(3, 5)}


def test_a_point_is_asked_for_until_it_is_added() -> None:
    refiner = Refiner(WIDE)
    point = refiner.next_point()
    assert point is not None
    assert refiner.next_point() == point
    with pytest.raises(InvalidKeyError, match="asked for"):
        refiner.add((7, 7), 1.0)
    with pytest.raises(InvalidKeyError, match="above 0"):
        refiner.add(point, float("nan"))
    refiner.add(point, 1.0)
    assert refiner.next_point() != point
    assert refiner.result("stopped by hand").stopped == "stopped by hand"


@pytest.mark.parametrize("ends", [(0, 8), (9, 8)])
def test_ranges_that_are_none_are_refused(ends: tuple[int, int]) -> None:
    with pytest.raises(InvalidKeyError, match="range of channels"):
        Domain(ends)
