"""The balanced mixture: marginals are uniform, at any temperature, and what is drawn follows the averages."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from compressor.search.methods.pooling.balance import Balance, balanced


def marginals(log_p: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    p = np.exp(log_p)
    return p.sum(1), p.sum(0)


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 80), st.integers(1, 8), st.floats(0.02, 1.0), st.integers(0, 1000))
def test_marginals_are_uniform(configurations: int, sets: int, tau: float, seed: int) -> None:
    values = np.random.default_rng(seed).uniform(0.2, 0.95, (configurations, sets))
    log_p, _ = balanced(values, tau)
    rows, columns = marginals(log_p)
    assert rows == pytest.approx(1 / configurations, rel=1e-9)
    assert columns == pytest.approx(1 / sets, rel=1e-4)


@pytest.mark.parametrize("sets", [1, 2, 4, 8])
def test_marginals_are_uniform_at_the_last_temperature(sets: int) -> None:
    values = np.random.default_rng(3).uniform(0.3, 0.9, (36, sets))
    log_p, _ = balanced(values, 1 / (100 * sets), most=200_000)
    rows, columns = marginals(log_p)
    assert rows == pytest.approx(1 / 36, rel=1e-9)
    assert columns == pytest.approx(1 / sets, rel=1e-4)


def test_it_is_the_softmax_scaled_along_both_axes() -> None:
    values = np.random.default_rng(0).uniform(0, 1, (6, 3))
    log_p, added = balanced(values, 0.3)
    plain = values / 0.3
    scale = log_p - plain  # log u_c + log v_m
    residue = scale - scale.mean(0) - scale.mean(1, keepdims=True) + scale.mean()
    assert np.abs(residue).max() < 1e-9
    again, _ = balanced(values, 0.3, added, most=1)
    assert again == pytest.approx(log_p, abs=1e-3)


def test_large_averages_do_not_overflow() -> None:
    log_p, _ = balanced(np.array([[1.0, 0.0], [0.0, 1.0]]), 1e-4)
    assert np.isfinite(log_p).all()
    assert np.exp(log_p) == pytest.approx(np.array([[0.5, 0.0], [0.0, 0.5]]), abs=1e-9)


def test_weight_sets_are_drawn_evenly_at_first_and_by_what_they_score_at_last() -> None:
    balance = Balance(4, 2)
    assert balance.tau == 1.0
    assert balance.of_sets(0) == pytest.approx([0.5, 0.5])
    for step in range(400):
        c, m = step % 4, step // 4 % 2
        balance.note(c, m, 0.9 if (c < 2) == (m == 0) else 0.4, (step + 1) / 400)
    assert balance.tau == pytest.approx(1 / 200)
    for c in range(4):
        own = 0 if c < 2 else 1
        assert balance.of_sets(c)[own] > 0.99
        assert balance.best(c) == own
    assert balance.averages[0, 0] == pytest.approx(0.9, abs=0.01)
    rows, columns = marginals(balance.log_probabilities())
    assert rows == pytest.approx(0.25, rel=1e-6)
    assert columns == pytest.approx(0.5, rel=1e-4)


def test_a_weight_set_that_never_trained_a_configuration_does_not_judge_it() -> None:
    balance = Balance(3, 4)  # averages begin at 1, more than anything scores
    balance.note(1, 2, 0.3, 0.5)
    assert balance.best(1) == 2


def test_the_state_goes_through_json_and_gives_the_same_draws() -> None:
    one, rng = Balance(9, 3), np.random.default_rng(5)
    for step in range(50):
        one.note(int(rng.integers(9)), int(rng.integers(3)), float(rng.uniform()), (step + 1) / 60)
        one.log_probabilities()
    two = Balance(9, 3)
    two.load_state_dict(json.loads(json.dumps(one.state_dict())))
    for each in (one, two):
        each.note(4, 1, 0.8, 51 / 60)
    assert (one.log_probabilities() == two.log_probabilities()).all()


def test_temperatures_fall_linearly_or_by_a_factor() -> None:
    straight, geometric = Balance(2, 4), Balance(2, 4, linear=False)
    for each in (straight, geometric):
        each.note(0, 0, 0.5, 0.5)
    assert straight.tau == pytest.approx((1 + 1 / 400) / 2)
    assert geometric.tau == pytest.approx((1 / 400) ** 0.5)
