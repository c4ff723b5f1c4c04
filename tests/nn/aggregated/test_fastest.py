"""The quickest form: measured once, kept in the table, and never in the way."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from compressor.nn import AggConv1d
from compressor.nn.aggregated import fastest, remembered
from compressor.nn.aggregated.fastest import measured
from lut import LatencyTable


class Timer:
    """Stands for ``fastest.seconds``."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, **takes: float) -> None:
        self.takes, self.calls = takes, []
        monkeypatch.setattr(fastest, "seconds", self)

    def __call__(self, form: str, x: torch.Tensor, *rest: Any) -> float:
        self.calls.append((form, len(x)))
        return self.takes[form] * len(x)


@pytest.fixture
def agg() -> AggConv1d:
    return AggConv1d(2, 2, (3, 5), (1, 3))


@pytest.mark.parametrize("quick", ["results", "weights", "fft"])
def test_the_quickest_is_taken_and_remembered(
    monkeypatch: pytest.MonkeyPatch, agg: AggConv1d, table: Path, quick: str
) -> None:
    timer = Timer(monkeypatch, **({"results": 1.1, "weights": 1.2, "fft": 1.3} | {quick: 1.0}))
    x = torch.randn(2, 2, 20)
    agg(x)
    assert agg.form_used == quick
    assert {form for form, _ in timer.calls} == {"results", "weights", "fft"}
    done = len(timer.calls)
    agg(x)
    AggConv1d(2, 2, (3, 5), (1, 3))(x)
    assert len(timer.calls) == done
    fastest.forget()  # another process
    timer.takes = {"results": 9.0, "weights": 9.0, "fft": 9.0}
    other = AggConv1d(2, 2, (3, 5), (1, 3))
    other(x)
    assert other.form_used == quick
    assert len(timer.calls) == done
    with LatencyTable(table) as rows:
        (target,) = rows.targets()
        assert (target.runtime, target.batch, target.precision) == ("torch", 2, "float32")
        kept = {dict(row.signature.attributes)["form"]: row.measurement.median_ms for row in rows.rows()}
    assert kept == {form: pytest.approx(took * 2e3) for form, took in kept_takes(quick).items()}


def kept_takes(quick: str) -> dict[str, float]:
    return {"results": 1.1, "weights": 1.2, "fft": 1.3} | {quick: 1.0}


def test_whatever_changes_the_time_is_measured_anew(monkeypatch: pytest.MonkeyPatch, agg: AggConv1d) -> None:
    timer = Timer(monkeypatch, results=1.0, weights=1.0, fft=1.0)
    x = torch.randn(2, 2, 20)
    agg(x)
    for act in (
        lambda: agg(torch.randn(3, 2, 20)),
        lambda: agg(torch.randn(2, 2, 21)),
        lambda: agg(x.clone().requires_grad_()),
        lambda: torch.no_grad()(agg)(x),
        lambda: torch.autocast("cpu", torch.bfloat16)(agg)(x),
        lambda: AggConv1d(2, 2, (3, 5), (1, 3), stride=2)(x),
        lambda: AggConv1d(2, 2, (3, 5), (1, 3), groups=2)(x),
        lambda: AggConv1d(2, 2, (3, 5), (1, 2))(x),
        lambda: AggConv1d(2, 2, (3, 5), (1, 3), dtype=torch.float64)(x.double()),
    ):
        done = len(timer.calls)
        act()
        assert len(timer.calls) > done
        done = len(timer.calls)
        act()
        assert len(timer.calls) == done


def test_sizes_without_end_are_not_all_measured(monkeypatch: pytest.MonkeyPatch, agg: AggConv1d) -> None:
    timer = Timer(monkeypatch, results=1.0, weights=2.0, fft=3.0)
    for n in range(20, 20 + fastest.SIZES):
        agg(torch.randn(1, 2, n))
    done = len(timer.calls)
    for n in range(30, 60):
        agg(torch.randn(1, 2, n))
    assert agg.form_used == "results"
    assert len(timer.calls) == done


def test_the_hopeless_are_not_run() -> None:
    calls: list[tuple[str, int]] = []

    def run(form: str, rows: int) -> float:
        calls.append((form, rows))
        return {"results": 1.0, "weights": 0.1, "fft": 0.004}[form] * rows

    took = measured({"results": 1e12, "weights": 1e11, "fft": 1e10}, run, 64)
    assert not took["results"].seconds
    assert "100 times the multiply-adds of fft" in took["results"].why
    assert not took["weights"].seconds
    assert "times as long" in took["weights"].why
    assert took["fft"].seconds
    assert max(rows for form, rows in calls if form == "weights") <= 64 * 0.3
    calls.clear()
    took = measured({"results": 1e7, "weights": 1e5, "fft": 1e6}, run, 64)  # quick, whatever arithmetic says
    assert {form for form, _ in calls} == {"results", "weights", "fft"}


def test_a_form_that_fails_is_left_out() -> None:
    def run(form: str, rows: int) -> float:
        if form == "fft":
            raise torch.OutOfMemoryError("too much")
        return 1.0

    took = measured({"results": 1e6, "weights": 1e6, "fft": 1e5}, run, 4)
    assert took["fft"].why == "too much"
    assert took["weights"].seconds


@pytest.mark.parametrize("trouble", ["no table", "a folder", "no permission", "an error"])
def test_no_table_stops_a_training(
    monkeypatch: pytest.MonkeyPatch, agg: AggConv1d, tmp_path: Path, trouble: str
) -> None:
    timer = Timer(monkeypatch, results=3.0, weights=2.0, fft=1.0)
    if trouble == "an error":
        monkeypatch.setattr(LatencyTable, "put_rows", lambda *_: 1 / 0)
    else:
        path = {"no table": "", "a folder": str(tmp_path), "no permission": "/proc/none/lut.sqlite"}[trouble]
        monkeypatch.setenv(remembered.VARIABLE, path)
    x = torch.randn(2, 2, 20)
    agg(x)
    done = len(timer.calls)
    agg(x)
    assert agg.form_used == "fft"
    assert len(timer.calls) == done


def test_measuring_leaves_no_trace(agg: AggConv1d) -> None:
    called = []
    for weight in agg.weights:
        weight.register_hook(lambda grad: called.append(1))
    x = torch.randn(2, 2, 20, requires_grad=True)
    agg.given = torch.rand(4)
    before = torch.get_rng_state()
    agg(x)
    assert torch.equal(torch.get_rng_state(), before)
    assert called == []
    assert x.grad is None
    assert all(parameter.grad is None for parameter in agg.parameters())


def test_nothing_is_measured_without_numbers_or_in_a_graph(monkeypatch: pytest.MonkeyPatch, agg: AggConv1d) -> None:
    timer = Timer(monkeypatch, results=1.0, weights=1.0, fft=1.0)
    meta = AggConv1d(2, 2, (3, 5), (1, 3), device="meta")
    assert meta(torch.randn(2, 2, 20, device="meta")).shape == (2, 2, 20)
    x = torch.randn(2, 2, 20)
    agg.given = torch.rand(4)
    torch.compiler.reset()
    y = torch.compile(agg)(x)
    assert timer.calls == []
    torch.testing.assert_close(y, agg(x))
    assert timer.calls
