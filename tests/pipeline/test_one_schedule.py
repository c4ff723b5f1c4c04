"""A search that goes on in fine-tuning: one fall of the learning rate over both."""

from __future__ import annotations

from typing import Any

import pytest

from compressor.budget import parse_budgets
from compressor.data import from_loaders
from compressor.pipeline.settings import Settings
from compressor.pipeline.stages import Pipeline
from compressor.search import METHODS, get_method
from compressor.train import Trainer
from compressor.train.schedule import cosine_with_warmup
from tests.api_models import EXAMPLE, loader, net

HALF = parse_budgets({"flops": "50%"})
EACH = 2  # steps of an epoch


@pytest.fixture
def rates(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The learning rate of every step of every trainer, in order."""
    found: list[float] = []
    real = Trainer._factor

    def noted(self: Trainer, step: int) -> float:
        factor = real(self, step)
        if self.config.lr * factor not in found:  # asked for again where it is logged
            found.append(self.config.lr * factor)
        return factor

    monkeypatch.setattr(Trainer, "_factor", noted)
    return found


def run(search: str, budgets: Any = HALF, **told: Any) -> Pipeline:
    options = {"epochs": 4, "batch_size": 16, "least_steps": 0, **told.pop("options", {})}
    settings = Settings(budgets, search, options, finetune_epochs=3, batch_size=16, **told)
    job = Pipeline(net(), EXAMPLE, settings, data=from_loaders(loader(32), loader(16, seed=1)))
    job.run()
    return job


def test_methods_that_go_on_say_so() -> None:
    assert [name for name in METHODS.names() if get_method(name).continues] == ["dnarch"]


@pytest.mark.parametrize("least_steps", [0, 50])
@pytest.mark.parametrize("lr", [0.05, 0.01])
def test_the_rate_of_a_job_falls_once(rates: list[float], lr: float, least_steps: int) -> None:
    run("dnarch", lr=lr, options={"least_steps": least_steps})
    expected = [lr * cosine_with_warmup(step, 7 * EACH) for step in range(7 * EACH)]
    assert rates == pytest.approx(expected)


def test_a_rate_of_the_searchs_own_is_its_peak(rates: list[float]) -> None:
    run("dnarch", lr=0.05, options={"lr": 0.2})
    factors = [cosine_with_warmup(step, 7 * EACH) for step in range(7 * EACH)]
    expected = [0.2 * factor for factor in factors[: 4 * EACH]] + [0.05 * factor for factor in factors[4 * EACH :]]
    assert rates == pytest.approx(expected)


def test_settings_that_are_tuned_begin_anew(rates: list[float]) -> None:
    grid = {"lr": [0.03], "weight_decay": [0.0], "momentum": [0.9], "dropout": [0.0]}
    run("dnarch", lr=0.05, tune=grid, tune_epochs=1)
    assert min(rates[: 4 * EACH]) < 0.05 * 0.06  # the search's own fall has ended
    assert rates[4 * EACH] == pytest.approx(0.03)


def test_other_searches_have_a_schedule_of_their_own(rates: list[float]) -> None:
    run("figs", lr=0.05, options={"least_steps": 0})
    assert rates[0] == pytest.approx(0.01)
    assert rates[4 * EACH] == pytest.approx(0.05)  # fine-tuning begins at its peak


def test_an_original_within_its_budgets_is_trained_by_itself(rates: list[float]) -> None:
    run("dnarch", parse_budgets({"flops": "100%"}), lr=0.05)
    assert not rates
