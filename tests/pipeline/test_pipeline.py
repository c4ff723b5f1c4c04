"""The stages of the main job: each is taken up where it was stored, and trims that are not exact are decided again."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import compressor.train as training
from compressor.budget import parse_budgets
from compressor.data import from_loaders
from compressor.pipeline.console import Console
from compressor.pipeline.events import Events
from compressor.pipeline.settings import Settings
from compressor.pipeline.stages import Pipeline
from compressor.pipeline.summary import describe_result
from compressor.storage.job import Job
from tests.api_models import EXAMPLE, loader, net

STAGES = ("train", "search", "finetune")


def settings(search: str = "figs", **options: Any) -> Settings:
    training = {"epochs": 1, "batch_size": 32} if search == "figs" else {}
    return Settings(
        parse_budgets({"flops": "50%"}), search, training, train_epochs=1, finetune_epochs=1, batch_size=32, **options
    )


def pipeline(job: Job | None, how: Settings | None = None) -> Pipeline:
    return Pipeline(net(), EXAMPLE, how or settings(), data=from_loaders(loader(), loader(32, seed=1)), job=job)


def state(model: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def equal(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


@pytest.mark.parametrize("search", ["oneshot", "figs"])
def test_a_finished_job_is_rebuilt_from_its_stages_without_training(
    tmp_path: Path, search: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Job.open(tmp_path, {"a": 1}) as job:
        first = pipeline(job, settings(search))
        first.run()
        for name in ("train", "search", "finetune", "score-before", "score-after-search"):
            assert job.stage(name) is not None

    class NoTrainer:
        def __init__(self, *_: Any, **__: Any) -> None:
            raise AssertionError("nothing is left to train")

    monkeypatch.setattr("compressor.search.training.learner.Trainer", NoTrainer)
    monkeypatch.setattr(training, "Trainer", NoTrainer)
    monkeypatch.setattr(training, "evaluate", NoTrainer)
    with Job.open(tmp_path, {"a": 1}) as job:
        again = pipeline(job, settings(search))
        again.run()
    assert again.architecture == first.architecture
    assert equal(state(again.compressed), state(first.compressed))
    assert again.scores == first.scores
    assert again.decision.history == first.decision.history


@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize("search", ["oneshot", "figs"])
def test_stopped_after_any_stage_it_ends_the_same(tmp_path: Path, stage: str, search: str) -> None:
    """A crash right after a stage was stored; kills at any moment are tested with processes."""
    whole = pipeline(None, settings(search))
    whole.run()
    with Job.open(tmp_path, {"a": 1}) as job:
        stopped = pipeline(job, settings(search))
        for name in ("train", "trace", "search", "trim", "finetune"):
            getattr(stopped, name)()
            if name == stage:
                break
    with Job.open(tmp_path, {"a": 1}) as job:
        again = pipeline(job, settings(search))
        again.run()
    assert again.architecture == whole.architecture
    assert equal(state(again.compressed), state(whole.compressed))


def test_the_original_is_changed_by_train_alone() -> None:
    job = pipeline(None)
    job.train()
    trained = state(job.model)
    for stage in (job.trace, job.search, job.trim, job.finetune):
        stage()
        assert equal(trained, state(job.model))


class SpelledWidth(nn.Module):
    """Uses its width in a way that no trace can follow: through text."""

    def __init__(self) -> None:
        super().__init__()
        self.bad, self.good = nn.Linear(8, 32), nn.Linear(32, 64)
        self.head = nn.Linear(64, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.bad(x).relu()
        x = x * float(str(x.shape[1]))
        out: Tensor = self.head(self.good(x).relu())
        return out


def test_what_is_not_trimmed_exactly_stays_whole_and_the_budgets_still_hold() -> None:
    torch.manual_seed(0)
    events = Events(Console(quiet=True))
    job = Pipeline(SpelledWidth(), torch.randn(1, 8), Settings(parse_budgets({"flops": "60%"})), events=events)
    job.run()
    compressed: Any = job.compressed
    assert job.problem.refused == ["bad"]
    assert len(compressed.bad.weight) == 32
    assert len(compressed.good.weight) < 64
    assert job.check.error <= 1e-9
    (constraint,) = job.problem.constraints
    assert job.reached(constraint.term) <= constraint.limit
    report = describe_result(job, name="spelled")
    assert any(fixed.place == "bad" and "not exact" in fixed.reason for fixed in report.fixed)
    assert any("bad" in warning for warning in events.warnings)


def test_the_report_says_what_was_reached() -> None:
    job = pipeline(None)
    job.run()
    report = describe_result(job, name="net")
    (budget,) = report.budgets
    assert (budget.cost, budget.unit, budget.asked) == ("flops", "macs", "50%")
    assert budget.met
    assert {cost.name for cost in report.costs} == {"flops", "params", "memory"}
    params = next(cost for cost in report.costs if cost.name == "params")
    assert params.original == sum(p.numel() for p in job.model.parameters())
    assert params.reached == sum(p.numel() for p in job.compressed.parameters())
    modules = dict(job.compressed.named_modules())
    for width in report.widths:
        if width.layer in modules and hasattr(modules[width.layer], "weight"):
            assert width.after == len(modules[width.layer].weight)  # type: ignore[arg-type]
    assert report.accuracy is not None
    assert report.accuracy.samples == 32
    assert report.accuracy.split == "val"
    assert report.history
    assert all("flops" in entry["costs"] for entry in report.history)
