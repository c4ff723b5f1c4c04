"""The optimizer of a job: who trains by it, at which rate, and that jobs which name none are what they were."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import compressor
from compressor.budget import parse_budgets
from compressor.data import from_loaders
from compressor.errors import UsageError
from compressor.jobs.config import JobConfig, upgraded
from compressor.jobs.recipes.write import recipe_values
from compressor.jobs.run import command_of
from compressor.options.shared import LRS, WEIGHT_DECAYS
from compressor.pipeline.grid import Hyperparameters, grid_points
from compressor.pipeline.settings import Settings
from compressor.pipeline.stages import Pipeline
from compressor.pipeline.training import own_hyperparameters
from compressor.process.progress import Progress
from compressor.search import METHODS, get_method
from compressor.storage.job import Job
from compressor.train import TrainConfig
from tests.api_models import EXAMPLE, loader, net

HALF = parse_budgets({"flops": "50%"})
SMALL: dict[str, dict[str, int]] = {
    "pooling": {"mixtures": 2, "top_k": 2, "top_epochs": 1},
    "supernet": {"population": 4, "generations": 0, "randoms": 0},
}
TRAINING = [name for name in METHODS.names() if get_method(name).trains]


def told(search: str, optimizer: str, more: Any = ()) -> Settings:
    own = {"epochs": 1, "batch_size": 16, **dict(more)}
    return Settings(HALF, search, own, train_epochs=1, finetune_epochs=1, batch_size=16, optimizer=optimizer)


def pipeline(how: Settings, job: Job | None = None) -> Pipeline:
    return Pipeline(net(), EXAMPLE, how, data=from_loaders(loader(32), loader(16, seed=1)), job=job)


class Plain(nn.Module):
    """Strided convolutions in a row, for every method to find something in."""

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for inside, out, stride in ((3, 8, 1), (8, 8, 2), (8, 8, 1), (8, 8, 2)):
            layers += [nn.Conv2d(inside, out, 3, stride, 1, bias=False), nn.BatchNorm2d(out), nn.ReLU()]
        self.body, self.head = nn.Sequential(*layers), nn.Linear(8, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = self.head(self.body(x).mean((2, 3)))
        return out


@pytest.fixture
def built(monkeypatch: pytest.MonkeyPatch) -> list[TrainConfig]:
    """What every optimizer of weights is made with."""
    import compressor.train.loop as loop

    found: list[TrainConfig] = []
    real = loop.build_optimizer

    def spied(model: nn.Module, config: TrainConfig, *rest: Any) -> Any:
        found.append(config)
        optimizer = real(model, config, *rest)
        assert type(optimizer) is {"sgd": torch.optim.SGD, "adamw": torch.optim.AdamW}[config.optimizer]
        return optimizer

    monkeypatch.setattr(loop, "build_optimizer", spied)
    return found


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
@pytest.mark.parametrize("search", TRAINING)
def test_search_and_fine_tuning_take_it_at_its_own_rate(search: str, optimizer: str, built: list[TrainConfig]) -> None:
    options = {"max_steps": 3, **SMALL.get(search, {})}
    training = compressor.Training(search_epochs=1, finetune_epochs=1, batch_size=16, optimizer=optimizer, tune="none")
    budgets = {"flops": "60%" if search in ("figs", "dnarch", "supernet") else "150%"}
    torch.manual_seed(0)
    data = (loader(32), loader(16, seed=1))
    result = compressor.compress(
        Plain(), EXAMPLE, budgets, data=data, search=search, options=options, training=training
    )
    assert {config.optimizer for config in built} == {optimizer}
    rates = LRS if get_method(search).continues else get_method(search).config.rates
    expected = rates[optimizer] if rates else {"sgd": 0.1, "adamw": 0.001}[optimizer]
    assert built[0].lr == expected  # of the search
    assert built[-1].lr == LRS[optimizer]  # of fine-tuning
    assert built[-1].weight_decay == WEIGHT_DECAYS[optimizer]
    assert all(torch.isfinite(p).all() for p in result.model.parameters())
    assert all(b.reached <= b.limit for b in result.report.budgets)


def test_the_original_and_decided_networks_are_trained_by_it_too(built: list[TrainConfig]) -> None:
    done = pipeline(told("figs", "adamw"))
    done.run()
    assert [config.optimizer for config in built] == ["adamw"] * 3
    assert [config.lr for config in built] == [0.001] * 3


def test_a_rate_that_is_given_holds_and_so_does_the_optimizer_of_a_search(built: list[TrainConfig]) -> None:
    pipeline(told("dnarch", "adamw", {"lr": 0.02, "optimizer": "sgd", "max_steps": 2})).run()
    assert [(c.optimizer, c.lr) for c in built] == [
        ("adamw", 0.001),
        *[("sgd", 0.02)] * (len(built) - 2),
        ("adamw", 0.001),
    ]


@pytest.mark.parametrize("stage", ["train", "search", "finetune"])
def test_a_job_that_was_cut_off_within_a_training_ends_with_the_same_bits(tmp_path: Path, stage: str) -> None:
    class Killed(Exception):
        pass

    class Killer:
        def start(self, total_steps: int, done_steps: int) -> None:
            pass

        def advance(self, done_steps: int, **shown: float) -> None:
            if done_steps == 2:
                raise Killed

        def close(self) -> None:
            pass

    how = told("dnarch", "adamw")
    whole = pipeline(how)
    whole.run()
    with Job.open(tmp_path, {"a": 1}) as job:
        cut = pipeline(how, job)
        plain = cut.events.progress

        def progress(name: str) -> Progress | None:
            return Killer() if name == stage else plain(name)

        cut.events.progress = progress  # type: ignore[method-assign, assignment]
        with pytest.raises(Killed):
            cut.run()
    with Job.open(tmp_path, {"a": 1}) as job:
        again = pipeline(how, job)
        again.run()
    assert again.architecture == whole.architecture
    mine, theirs = again.compressed.state_dict(), whole.compressed.state_dict()
    assert all(torch.equal(mine[name], theirs[name]) for name in theirs)


def test_the_default_rate_goes_with_the_optimizer() -> None:
    for optimizer, lr in LRS.items():
        job = JobConfig("resnet18", HALF, "out", optimizer=optimizer)
        assert job.lr == lr
        assert Settings(HALF, optimizer=optimizer).lr == lr
        assert JobConfig.from_json(json.loads(json.dumps(job.to_json()))) == job
        assert ("--optimizer" in command_of(job)) == (optimizer != "sgd")
        assert "--lr" not in command_of(job)
    own = JobConfig("resnet18", HALF, "out", optimizer="adamw", lr=0.05)
    assert own.lr == 0.05
    assert "--lr 0.05" in command_of(own)
    for wrong in ("adam", None, 3):
        with pytest.raises(UsageError, match="optimizer must be one of sgd, adamw"):
            JobConfig("resnet18", HALF, "out", optimizer=wrong)  # type: ignore[arg-type]
        with pytest.raises(UsageError, match="optimizer must be one of sgd, adamw"):
            compressor.Training(optimizer=wrong)  # type: ignore[arg-type]


@pytest.mark.parametrize("search", TRAINING)
@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_a_recipe_says_the_rate_of_the_search_and_is_the_same_job(search: str, optimizer: str) -> None:
    job = JobConfig("resnet18", HALF, "out", data="digits", search=search, optimizer=optimizer)
    written = recipe_values(job)
    assert (written["optimizer"], written["lr"]) == (optimizer, LRS[optimizer])
    rates = get_method(search).config.rates
    assert written[search].get("lr") == rates.get(optimizer)
    again = JobConfig(
        "resnet18", HALF, "out", data="digits", search=search, optimizer=optimizer, options=written[search]
    )
    assert again.identity() == job.identity()
    if rates:
        other = JobConfig("resnet18", HALF, "o", data="digits", search=search, optimizer=optimizer, options={"lr": 0.3})
        assert other.identity() != job.identity()


def test_jobs_from_before_there_was_a_choice_go_on() -> None:
    job = JobConfig("resnet18", HALF, "a", data="digits", search="figs")
    before = {key: value for key, value in job.identity().items() if key != "optimizer"}
    assert before["lr"] == 0.05
    assert upgraded(before | {"options": {"lr": 0.01}}) == job.identity()  # the default of then, written out
    assert (
        JobConfig("resnet18", HALF, "a", data="digits", search="figs", optimizer="adamw").identity() != job.identity()
    )


def test_grids_of_trials_are_around_its_rate_and_leave_out_momentum() -> None:
    own = own_hyperparameters(Settings(HALF, optimizer="adamw"))
    assert own == Hyperparameters(0.001, 0.01, 0.9)
    short = grid_points("short", own, momentum=False, optimizer="adamw")
    assert short[0] == own
    assert {round(each.lr, 7) for each in short} == {0.001, round(0.001 / 3, 7), 0.0001}
    paper = grid_points("paper", own, momentum=False, dropout=False, optimizer="adamw")
    assert sorted({each.lr for each in paper}) == pytest.approx([2e-5, 2e-4, 2e-3])
    assert {each.momentum for each in paper} == {0.9}
    assert sorted({each.lr for each in grid_points("paper", own)}) == [1e-3, 1e-2, 1e-1]
