"""A search that is too short to learn what to keep leaves that to one shot, and trains what is kept."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import compressor
from compressor.cli import main
from compressor.search.base import SearchContext
from compressor.search.methods.figs.config import FigsConfig
from compressor.search.methods.figs.method import Figs
from compressor.search.methods.oneshot.method import OneShot
from compressor.trim import trim_verified
from tests.search.search_models import EXAMPLE, NETWORKS, context


def short(model: nn.Module, said: list[str], **options: Any) -> SearchContext:
    found = context(model, {"flops": 0.5}, options={"epochs": 2, "lr": 0.05, **options})
    found.warn = said.append
    return found


@pytest.mark.parametrize("name", sorted(NETWORKS))
def test_one_shot_decides_and_every_step_trains_what_is_kept(name: str) -> None:
    model, said = NETWORKS[name](), list[str]()
    given = short(model, said)
    expected = OneShot().run(SearchContext(model, given.graph, given.constraints, data=given.data, seed=given.seed))
    before = {key: tensor.clone() for key, tensor in model.state_dict().items()}
    found = Figs().run(given)
    assert np.array_equal(found.units, expected.units)
    assert np.array_equal(found.gates_or_all(given.graph), expected.gates_or_all(given.graph))
    assert any("needs 77 to do better than one shot" in text for text in said)
    result = trim_verified(model, given.graph, found.units, EXAMPLE, gates=found.gates)
    assert result.check.error < 1e-9
    assert any(not torch.equal(before[key], tensor) for key, tensor in model.state_dict().items())


def test_nothing_is_trained_in_no_steps() -> None:
    model, said = NETWORKS["plain"](), list[str]()
    before = {key: tensor.clone() for key, tensor in model.state_dict().items()}
    Figs().run(short(model, said, epochs=0))
    assert any("has 0 steps" in text for text in said)
    assert all(torch.equal(before[key], tensor) for key, tensor in model.state_dict().items())


@pytest.mark.parametrize(
    ("options", "steps"),
    [
        ({}, 77),
        ({"settle": 1.0}, 50),
        ({"logit_lr": 0.1}, 39),
        ({"start": -1.0}, 0),
        ({"least_steps": 0}, 0),
        ({"least_steps": 12}, 12),
    ],
)
def test_it_needs_as_many_steps_as_a_logit_needs_to_fall_to_zero(options: dict[str, Any], steps: int) -> None:
    assert FigsConfig.from_options(options).needed_steps == steps


def test_it_searches_in_as_few_steps_as_it_is_told() -> None:
    said: list[str] = []
    Figs().run(short(NETWORKS["plain"](), said, least_steps=0))
    assert not any("one shot" in text for text in said)


def test_where_no_search_is_named_short_trainings_do_not_search_and_the_report_says_why() -> None:
    torch.manual_seed(0)
    model: Any = nn.Sequential(nn.Linear(6, 32), nn.ReLU(), nn.Linear(32, 4))
    batches = [(torch.randn(16, 6), torch.randint(4, (16,))) for _ in range(8)]
    training = compressor.Training(search_epochs=20, finetune_epochs=1, batch_size=16)
    told: dict[str, Any] = {"data": (batches, batches), "training": training}
    found = compressor.compress(model, torch.randn(2, 6), {"flops": "50%"}, **told)
    assert any("160 steps and needs 400" in text for text in found.report.warnings)
    found = compressor.compress(model, torch.randn(2, 6), {"flops": "50%"}, search="figs", **told)
    assert not any("one shot" in text for text in found.report.warnings)


def test_a_recipe_says_what_the_default_is(capsys: pytest.CaptureFixture[str]) -> None:
    asked = ["config", "show", "--model", "resnet20_cifar", "--data", "digits", "--budget-flops", "50%"]
    assert main(asked) == 0
    assert "least_steps: 400" in capsys.readouterr().out
    assert main([*asked, "--search", "figs"]) == 0
    assert "least_steps" not in capsys.readouterr().out
