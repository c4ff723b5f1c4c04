"""The latency term: exact where the table is, differentiable everywhere, calibrated, and held on the device."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import pytest
import torch

import compressor
from compressor.costs import Sizes, build
from compressor.errors import UsageError
from compressor.graph import capture
from compressor.latency.calibrate import PredictionAccuracy, fit, kendall_tau
from compressor.latency.predict import Coefficients
from compressor.latency.subnets import random_choices
from compressor.latency.target import LatencySession
from compressor.latency.term import Latency
from compressor.search.constraints.constraint import hard_sizes
from compressor.trim import trim_verified
from tests.latency.simulated_models import example, network, simulated


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One table for all: what it knows is not measured again."""
    return tmp_path_factory.mktemp("lut")


@pytest.fixture(scope="module")
def session(folder: Path) -> Iterator[LatencySession]:
    model = network()
    found = LatencySession(model, capture(model, example()), example(), simulated(folder))
    yield found
    found.close()


def test_predictions_of_random_subnets_agree_with_the_device(session: LatencySession) -> None:
    assert session.prediction.held_out["mean_error"] < 0.02
    assert session.prediction.held_out["kendall_tau"] == 1.0
    assert session.prediction.estimated == []


def test_the_gradient_points_to_where_latency_grows(session: LatencySession) -> None:
    graph, term = session.graph, session.term
    units = torch.full((graph.n_units,), 0.8, dtype=torch.float64, requires_grad=True)
    gates = torch.full((len(graph.blocks),), 0.9, dtype=torch.float64, requires_grad=True)
    value = term(Sizes(graph, units, gates))
    value.backward()
    assert value.item() < term.original
    assert units.grad is not None
    assert bool((units.grad > 0).all())
    assert gates.grad is not None
    assert bool((gates.grad > 0).all())


def test_cropped_kernels_are_measured_and_cost_less(folder: Path) -> None:
    model = network()
    graph = capture(model, example(), kernels=True)
    with contextlib.closing(LatencySession(model, graph, example(), simulated(folder))) as found:
        units, term = graph.all_units(), found.term
        rings = np.concatenate([group.units for group in graph.groups if group.kind == "kernel"])
        units[rings] = False
        result = trim_verified(model, graph, units, example())
        with contextlib.closing(LatencySession(result.model, capture(result.model, example()), example(),
                                               simulated(folder))) as smaller:  # fmt: skip
            plain = [sum(ms for _, _, ms in each.by_operator(sizes)) for each, sizes in (
                (term, hard_sizes(graph, units)), (smaller.term, Sizes.full(smaller.graph)))]  # fmt: skip
        assert float(term(hard_sizes(graph, units))) < term.original
        assert plain[0] == pytest.approx(plain[1], rel=0.05)
        weights = torch.full((graph.n_units,), 0.6, dtype=torch.float64, requires_grad=True)
        term(Sizes(graph, weights)).backward()
        assert weights.grad is not None
        assert bool((weights.grad[torch.from_numpy(rings)] > 0).all())


def test_a_closed_gate_takes_its_operators_away(session: LatencySession) -> None:
    graph, term = session.graph, session.term
    whole, units = term.original, graph.all_units()
    for block in range(len(graph.blocks)):
        gates = np.ones(len(graph.blocks), dtype=np.bool_)
        gates[block] = False
        assert float(term(hard_sizes(graph, units, gates))) < whole


def test_operators_add_up_to_the_whole(session: LatencySession) -> None:
    parts = session.term.by_operator(Sizes.full(session.graph))
    assert len(parts) == len(session.graph.operators)
    assert sum(ms for _, _, ms in parts) == pytest.approx(session.term.original, rel=0.05)


def test_widths_the_device_likes_come_from_the_table(session: LatencySession) -> None:
    found = session.multiples()
    assert found
    assert set(found.values()) <= {2, 4, 8}


def test_without_a_target_there_is_no_latency() -> None:
    with pytest.raises(UsageError, match="--target"):
        build("latency", capture(network(), example()))
    with pytest.raises(UsageError, match="target"):
        compressor.compress(network(), example(), {"latency": "50%"})


def test_a_fit_finds_what_made_the_numbers_and_stays_a_sum_without_reason() -> None:
    random = np.random.default_rng(0)
    rows = [
        {"conv": a, "other": b, "weights_mb": c, "activations_mb": a + b, "operators": 10.0}
        for a, b, c in random.uniform(1, 10, (40, 3))
    ]
    sums = fit(rows, [row["conv"] + row["other"] for row in rows])
    assert sums.scales["conv"] == pytest.approx(1.0, abs=0.01)
    assert sums.weights_ms_per_mb == pytest.approx(0.0, abs=0.01)
    scaled = fit(rows, [1.3 * (row["conv"] + row["other"]) for row in rows])
    totals = [scaled.scales["conv"] * r["conv"] + scaled.scales["other"] * r["other"]
              + scaled.weights_ms_per_mb * r["weights_mb"] + scaled.activations_ms_per_mb * r["activations_mb"]
              + scaled.operator_ms * 10 for r in rows]  # fmt: skip
    error = PredictionAccuracy.of(totals, [1.3 * (r["conv"] + r["other"]) for r in rows])
    assert error.mean_error < 0.05
    assert Coefficients.from_json(scaled.to_json()) == scaled


def test_what_one_network_alone_tells_is_not_wholly_believed() -> None:
    shares = [0.0] * 10 + [0.5]
    rows = [{"conv": 1.0 - share, "ragged": share, "weights_mb": 0.5, "activations_mb": 1.0, "operators": 20.0}
            for share in shares]  # fmt: skip
    found = fit(rows, [1.0 + 0.4 * share for share in shares])
    assert 1.05 < found.scales["ragged"] < 1.35
    assert found.scales["conv"] == pytest.approx(1.0, abs=0.05)


def test_a_network_timed_in_a_bad_moment_does_not_decide() -> None:
    rows = [{"conv": ms, "other": 1.0, "weights_mb": 0.5, "activations_mb": 1.0, "operators": 20.0}
            for ms in np.linspace(1.0, 10.0, 11)]  # fmt: skip
    found = fit(rows, [(1.0 if index != 5 else 1.6) * (row["conv"] + row["other"]) for index, row in enumerate(rows)])
    totals = [found.scales["conv"] * r["conv"] + found.scales["other"] + found.weights_ms_per_mb * 0.5
              + found.activations_ms_per_mb + found.operator_ms * 20 for r in rows]  # fmt: skip
    assert PredictionAccuracy.of(totals, [row["conv"] + row["other"] for row in rows]).worst_error < 0.02


def test_what_the_clock_of_single_operators_reads_too_much_is_found() -> None:
    random = np.random.default_rng(0)
    rows = [{"conv": ms, "weights_mb": 0.1, "activations_mb": 0.1, "operators": 100.0}
            for ms in random.uniform(0.5, 3.0, 15)]  # fmt: skip
    found = fit(rows, [row["conv"] - 0.001 * row["operators"] for row in rows])
    assert found.operator_ms == pytest.approx(-0.001, rel=0.5)
    totals = [found.scales["conv"] * row["conv"] + found.operator_ms * 100 for row in rows]
    assert PredictionAccuracy.of(totals, [row["conv"] - 0.1 for row in rows]).mean_error < 0.02


def test_subnets_are_timed_once_and_the_fit_made_anew(folder: Path, session: LatencySession,
                                                      monkeypatch: pytest.MonkeyPatch) -> None:  # fmt: skip
    fitted: list[int] = []

    def counted(rows: Sequence[Mapping[str, float]], ms: Sequence[float]) -> Coefficients:
        fitted.append(len(rows))
        return fit(rows, ms)

    monkeypatch.setattr("compressor.latency.target.time_choices", None)
    monkeypatch.setattr("compressor.latency.calibrate.fit", counted)
    model = network()
    with contextlib.closing(LatencySession(model, capture(model, example()), example(), simulated(folder))) as again:
        assert again.term.coefficients == session.term.coefficients
        assert again.original_ms == session.original_ms
        assert again.prediction.held_out == session.prediction.held_out
    assert fitted == [5, 7]  # without the two of six that are held out, then with them; and the original

    with pytest.raises(TypeError):  # other subnets have to be timed
        LatencySession(model, capture(model, example()), example(), simulated(folder, subnets=7))


def test_kendall_tau() -> None:
    assert kendall_tau([1, 2, 3], [10, 20, 30]) == 1.0
    assert kendall_tau([1, 2, 3], [3, 2, 1]) == -1.0


def test_evaluating_is_cheap_because_points_are_kept(session: LatencySession) -> None:
    term: Latency = session.term
    choices = random_choices(session.graph, 4)
    for choice in choices:
        term(hard_sizes(session.graph, choice.units))
    known = [len(found) for found in term.lookup._known]
    for choice in choices:
        term(hard_sizes(session.graph, choice.units))
    assert [len(found) for found in term.lookup._known] == known
