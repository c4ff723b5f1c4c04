"""The tuning between trim and fine-tuning: which trial wins, what is kept, and that a killed job ends the same."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

import compressor
from compressor.budget import parse_budgets
from compressor.data import Data, from_loaders
from compressor.errors import DataError, UsageError
from compressor.pipeline import tuning as module
from compressor.pipeline.events import Event, Events, TrialEnded
from compressor.pipeline.settings import Settings
from compressor.pipeline.stages import Pipeline
from compressor.pipeline.summary import describe_result
from compressor.pipeline.trial import run_trial
from compressor.pipeline.tuning import best
from compressor.report import Report
from compressor.report.tuning import Trial, Tuning
from compressor.search import get_method
from compressor.storage.job import Job
from tests.api_models import EXAMPLE, loader, net


class Dropping(nn.Module):
    """A network with two kinds of dropout."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.head = nn.Conv2d(3, 16, 3), nn.Conv2d(16, 16, 3), nn.Linear(16, 4)
        self.wide, self.last = nn.Dropout2d(0.3), nn.Dropout(0.3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.wide(self.first(x).relu())
        out: Tensor = self.head(self.last(self.second(x).relu().mean((2, 3))))
        return out


def dropping() -> Dropping:
    torch.manual_seed(0)
    return Dropping()


def settings(**more: Any) -> Settings:
    told: dict[str, Any] = {"tune": "short", "tune_samples": 0.5, "finetune_epochs": 2, "batch_size": 16, **more}
    return Settings(parse_budgets({"flops": "60%"}), "oneshot", {"importance": "magnitude"}, **told)


def data(test: bool = True) -> Data:
    return from_loaders(loader(), loader(32, seed=1), loader(32, seed=2) if test else None)


def pipeline(
    how: Settings, job: Job | None = None, model: nn.Module | None = None, given: Data | None = None, **more: Any
) -> Pipeline:
    return Pipeline(model or net(), EXAMPLE, how, data=given or data(), job=job, **more)


def state(model: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def equal(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def bare(found: Tuning | None) -> Tuning:
    """All but how long it took."""
    assert found is not None
    return replace(found, trials=[replace(trial, seconds=0.0) for trial in found.trials])


def ran(job: Pipeline) -> Tuning:
    job.run()
    return bare(job.tuning)


def test_the_best_row_wins_and_fine_tuning_takes_it() -> None:
    own = {"lr": [1e-6, 0.05], "momentum": [0.5], "weight_decay": [1e-3]}
    job = pipeline(settings(tune=own))
    found = ran(job)
    assert [(t.number, t.lr, t.momentum, t.weight_decay, t.dropout) for t in found.trials] == [
        (1, 1e-6, 0.5, 1e-3, None),
        (2, 0.05, 0.5, 1e-3, None),
    ]
    scores = [t.score for t in found.trials]
    assert None not in scores
    assert found.won == 1 + max(range(2), key=lambda i: (scores[i], -i))
    assert (found.grid, found.metric, found.split, found.held_out) == ("own", "top-1 accuracy", "val", 32)
    assert [(t.epochs, t.samples) for t in found.trials] == [(1, 48)] * 2
    alone = pipeline(settings(tune={**own, "lr": [found.winner.lr]}))  # type: ignore[union-attr]
    ran(alone)
    assert equal(state(job.compressed), state(alone.compressed)), "only what was chosen matters"
    without = pipeline(settings(tune="none", lr=found.winner.lr))  # type: ignore[union-attr]
    without.run()
    assert without.tuning is None
    assert not equal(state(job.compressed), state(without.compressed)), "momentum and decay differ"


def test_short_begins_with_the_jobs_own_settings_and_ties_go_to_the_first() -> None:
    found = ran(pipeline(settings(lr=0.03)))
    assert len(found.trials) == 6
    first = found.trials[0]
    assert (first.lr, first.weight_decay, first.momentum, first.dropout) == (0.03, 5e-4, 0.9, None)
    assert len({(t.lr, t.weight_decay) for t in found.trials}) == 6


def test_where_the_first_wins_the_network_is_that_of_a_job_without_tuning() -> None:
    tuned, plain = pipeline(settings(tune={"lr": [0.05]})), pipeline(settings(tune="none"))
    ran(tuned)
    plain.run()
    assert equal(state(tuned.compressed), state(plain.compressed))


@pytest.mark.parametrize(("lower", "number"), [(False, 2), (True, 4)])
def test_direction_and_ties(lower: bool, number: int) -> None:
    scores = [0.4, 0.7, None, 0.1, 0.7, 0.1]
    trials = [
        Trial(n, 0.1, 0.0, 0.9, None, score, 1, 8, 0.0, None if score is not None else "x")
        for n, score in enumerate(scores, 1)
    ]
    assert best(trials, lower_is_better=lower) == number
    assert best(trials[2:3], lower_is_better=lower) is None


def test_dropout_is_varied_where_there_is_some_and_set_in_what_is_kept() -> None:
    grid = {"dropout": [0.0, 0.9], "lr": [0.05]}
    job = pipeline(settings(tune=grid), model=dropping())
    found = ran(job)
    assert [t.dropout for t in found.trials] == [0.0, 0.9]
    assert found.winner is not None
    kept = [m.p for m in job.compressed.modules() if isinstance(m, (nn.Dropout, nn.Dropout2d))]
    assert kept == [found.winner.dropout] * 2
    assert [m.p for m in job.model.modules() if isinstance(m, (nn.Dropout, nn.Dropout2d))] == [0.3, 0.3]
    assert [t.dropout for t in ran(pipeline(settings(tune=grid))).trials] == [None]


def test_a_trial_that_diverges_is_a_row_with_its_reason(tmp_path: Path) -> None:
    events: list[Event] = []
    with Job.open(tmp_path, {"a": 1}) as job:
        found = ran(pipeline(settings(tune={"lr": [1e30, 0.01]}), job, events=Events(events.append)))
    lost, good = found.trials
    assert lost.score is None
    assert lost.lost is not None
    assert "NaN" in lost.lost or "finite" in lost.lost
    assert str(tmp_path) not in lost.lost
    assert good.score is not None
    assert found.won == 2
    told = [event for event in events if isinstance(event, TrialEnded)]
    assert [(e.number, e.count, e.settings["lr"], e.score is None) for e in told] == [
        (1, 2, 1e30, True),
        (2, 2, 0.01, False),
    ]


def test_where_all_are_lost_the_jobs_own_settings_are_kept(tmp_path: Path) -> None:
    how = settings(tune={"lr": [1e30, 1e31]})
    for _ in range(2):  # the second time from what is stored
        events = Events()
        with Job.open(tmp_path, {"a": 1}) as stored:
            job = pipeline(how, stored, events=events)
            assert ran(job).won is None
        assert any("All 2 trials" in warning for warning in events.warnings)
    plain = pipeline(settings(tune="none"))
    plain.run()
    assert equal(state(job.compressed), state(plain.compressed))


class Killed(BaseException):
    """As if the process had been killed."""


def stop_in_trial(monkeypatch: pytest.MonkeyPatch, number: int, step: int | None) -> None:
    """Kill in the trial ``number``: before it begins, or after a step whose checkpoint was written."""

    class After:
        def start(self, total_steps: int, done_steps: int) -> None: ...
        def advance(self, done_steps: int, **_: float) -> None:
            if done_steps == step:
                raise Killed

        def close(self) -> None: ...

    def stopping(ground: Any, at: int, *rest: Any) -> Trial:
        if at != number:
            return run_trial(ground, at, *rest)
        if step is None:
            raise Killed
        return run_trial(ground, at, *rest[:2], After())  # type: ignore[arg-type]

    monkeypatch.setattr(module, "run_trial", stopping)


@pytest.mark.parametrize("step", [None, 4])
@pytest.mark.parametrize("number", [1, 2])
def test_killed_between_and_inside_trials_it_ends_the_same(
    tmp_path: Path, number: int, step: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    how = settings(tune={"lr": [0.05, 0.01], "dropout": [0.1]}, tune_epochs=2)
    whole = pipeline(how, model=dropping())
    undisturbed = ran(whole)
    monkeypatch.setattr("compressor.train.config.TrainConfig.checkpoint_seconds", 0.0)
    with monkeypatch.context() as inner:
        stop_in_trial(inner, number, step)
        with Job.open(tmp_path, {"a": 1}) as job, pytest.raises(Killed):
            pipeline(how, job, dropping()).run()
    with Job.open(tmp_path, {"a": 1}) as job:
        assert (job.stage("tune-1") is not None) == (number == 2)
        assert job.checkpoint(f"tune-{number}").exists() == (step is not None)
        told: list[Event] = []
        again = pipeline(how, job, dropping(), events=Events(told.append))
        assert ran(again) == undisturbed
        assert not job.checkpoint("tune-1").exists()
    assert [e.stored for e in told if isinstance(e, TrialEnded)] == [number == 2, False]
    assert equal(state(again.compressed), state(whole.compressed))
    with Job.open(tmp_path, {"a": 1}) as job:  # all over: nothing is tried, and the network is as it was
        monkeypatch.setattr(module, "run_trial", None)
        done = pipeline(how, job, dropping())
        assert ran(done) == undisturbed
    assert equal(state(done.compressed), state(whole.compressed))
    assert [m.p for m in done.compressed.modules() if isinstance(m, nn.Dropout)] == [0.1]


class Watched:
    """A split that says whether it was looked at; not one of the program's own."""

    def __init__(self, count: int, first: int, allowed: bool = True) -> None:
        source = torch.Generator().manual_seed(first)
        self.targets = torch.randint(4, (count,), generator=source)
        self.inputs = torch.randn(count, 3, 8, 8, generator=source) + self.targets[:, None, None, None]
        self.allowed, self.seen = allowed, set[int]()

    def __len__(self) -> int:
        return len(self.targets)

    def batches(
        self, batch_size: int, *, shuffle_seed: int | None = None, augment: bool = False, drop_last: bool = False
    ) -> Iterator[tuple[Tensor, Tensor]]:
        assert self.allowed, "the report quotes this split"
        order = torch.arange(len(self))
        if shuffle_seed is not None:
            order = torch.randperm(len(self), generator=torch.Generator().manual_seed(shuffle_seed))
        for part in order.split(batch_size):
            if len(part) == batch_size or not drop_last:
                yield self.inputs[part], self.targets[part]


@pytest.mark.parametrize("test", [True, False])
def test_what_the_report_quotes_is_never_looked_at(test: bool) -> None:
    base = data()
    val, last = Watched(32, 1), Watched(32, 2) if test else None
    given = replace(base, train=Watched(96, 0), val=val, test=last)
    job = pipeline(settings(tune={"lr": [0.05, 0.01]}), given=given)
    for stage in (job.trace, job.assess, job.search, job.trim):
        stage()
    (last or val).allowed = False
    job.tune()
    found = bare(job.tuning)
    assert (found.split, found.held_out) == (("val", 32) if test else ("train", 15))
    (last or val).allowed = True
    job.finetune()


def test_too_little_to_hold_out_is_said() -> None:
    given = replace(data(test=False), train=Watched(1, 0))
    with pytest.raises(DataError, match="hold"):
        pipeline(settings(batch_size=1), given=given).run()


def test_the_report_has_the_rows() -> None:
    job = pipeline(settings(tune={"lr": [0.05, 1e30]}))
    job.run()
    report = describe_result(job, name="net")
    assert report.tuning == job.tuning
    again = Report.from_json(report.to_json())
    assert again.tuning == report.tuning
    assert [t.lost is None for t in again.tuning.trials] == [True, False]  # type: ignore[union-attr]


def test_auto_is_what_the_method_declares(monkeypatch: pytest.MonkeyPatch) -> None:
    assert get_method("oneshot").tune == "none"
    assert settings(tune="auto").grid == "none"
    method = replace(get_method("oneshot"), tune="short")
    monkeypatch.setattr("compressor.pipeline.settings.get_method", lambda _: method)
    assert settings(tune="auto").grid == "short"
    assert settings(tune="none").grid == "none"
    with pytest.raises(UsageError, match="tune of the method"):
        replace(method, tune="shrt")
    assert settings(tune="auto", finetune_epochs=0).grid == "none"


def test_a_model_within_its_budgets_is_not_tuned() -> None:
    how = replace(settings(), budgets=parse_budgets({"flops": "100%"}))
    job = pipeline(how)
    job.run()
    assert job.tuning is None


def test_a_grid_without_fine_tuning_is_refused() -> None:
    with pytest.raises(UsageError, match="finetune_epochs"):
        settings(finetune_epochs=0)


def test_the_paper_has_24() -> None:
    from compressor.pipeline.grid import Hyperparameters, grid_points

    own = Hyperparameters(0.05, 5e-4, 0.9)
    assert len(grid_points("paper", own)) == 24
    assert len(grid_points("paper", own, dropout=False)) == 12
    assert len(grid_points("paper", own, dropout=False, momentum=False)) == 6


def test_it_is_a_part_of_training_in_python() -> None:
    told = compressor.Training(finetune_epochs=1, batch_size=16, tune={"lr": [0.05, 0.01]}, tune_samples=0.3)
    result = compressor.compress(net(), EXAMPLE, {"flops": "60%"}, data=data(), search="oneshot", training=told)
    assert result.report.tuning is not None
    assert [trial.lr for trial in result.report.tuning.trials] == [0.05, 0.01]
    for wrong, named in (({"lr": [0]}, "tune.lr"), ({}, "empty"), ({"rate": [1]}, "rate"), (3, "tune")):
        with pytest.raises(UsageError, match=named):
            compressor.Training(tune=wrong)  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="pass data"):
        compressor.compress(net(), EXAMPLE, {"flops": "60%"}, training=compressor.Training(tune="short"))


def test_an_error_is_a_score_of_which_less_is_better() -> None:
    def loss(outputs: Tensor, targets: Tensor) -> Tensor:
        return (outputs - nn.functional.one_hot(targets[:, 0], 4)).square().mean()

    def loaded(count: int, seed: int) -> DataLoader[Any]:
        inputs, targets = loader(count, seed).dataset.tensors  # type: ignore[attr-defined]
        return DataLoader(TensorDataset(inputs, targets[:, None].float().long()), batch_size=16)

    given = from_loaders(loaded(96, 0), loaded(32, 1), loaded(32, 2), own_loss=True)
    found = ran(pipeline(settings(tune={"lr": [1e-6, 0.02]}, loss_fn=loss), given=given))
    assert (found.metric, found.lower_is_better) == ("loss", True)
    assert found.won == 2
    assert found.trials[1].score < found.trials[0].score  # type: ignore[operator]
