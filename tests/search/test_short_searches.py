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
from compressor.search.methods.dnarch.config import DnarchConfig
from compressor.search.methods.dnarch.method import Dnarch
from compressor.search.methods.figs.config import FigsConfig
from compressor.search.methods.figs.method import Figs
from compressor.search.methods.oneshot.method import OneShot
from compressor.trim import trim_verified
from tests.search.search_models import EXAMPLE, NETWORKS, context


def short(model: nn.Module, said: list[str], **options: Any) -> SearchContext:
    found = context(model, {"flops": 0.5}, options={"epochs": 2, "lr": 0.05, **options})
    found.warn = said.append
    return found


METHODS: dict[str, Any] = {"figs": Figs, "dnarch": Dnarch}
NEEDS = {"figs": "needs 77 to do better than one shot", "dnarch": "take 50 from one end to the other"}


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("name", sorted(NETWORKS))
def test_one_shot_decides_and_every_step_trains_what_is_kept(name: str, method: str) -> None:
    model, said = NETWORKS[name](), list[str]()
    options: dict[str, Any] = {"learn": learnable(model)} if method == "dnarch" else {}
    given = short(model, said, **options)
    expected = OneShot().run(SearchContext(model, given.graph, given.constraints, data=given.data, seed=given.seed))
    before = {key: tensor.clone() for key, tensor in model.state_dict().items()}
    found = METHODS[method]().run(given)
    assert np.array_equal(found.units, expected.units)
    assert np.array_equal(found.gates_or_all(given.graph), expected.gates_or_all(given.graph))
    assert any(NEEDS[method] in text for text in said)
    result = trim_verified(model, given.graph, found.units, EXAMPLE, gates=found.gates)
    assert result.check.error < 1e-9
    assert any(not torch.equal(before[key], tensor) for key, tensor in model.state_dict().items())


def learnable(model: nn.Module) -> tuple[str, ...]:
    """What one shot decides, too."""
    return ("width", "depth") if context(model, {"flops": 0.5}).graph.blocks else ("width",)


@pytest.mark.parametrize(("method", "text"), [("figs", "has 0 steps"), ("dnarch", "learn in 0 steps")])
def test_nothing_is_trained_in_no_steps(method: str, text: str) -> None:
    model, said = NETWORKS["plain"](), list[str]()
    before = {key: tensor.clone() for key, tensor in model.state_dict().items()}
    METHODS[method]().run(short(model, said, epochs=0))
    assert any(text in each for each in said)
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


@pytest.mark.parametrize(
    ("options", "components", "steps"),
    [
        ({}, {"width", "depth"}, 50),
        ({"least_steps": 7}, {"width"}, 7),
        ({"least_steps": 0}, {"width"}, 0),
        ({}, {"depth"}, 0),
        ({}, {"width", "kernel"}, 0),
        ({}, {"width", "resolution"}, 0),
        ({"grow": 2}, {"width"}, 0),
    ],
)
def test_what_one_shot_cannot_decide_is_searched_in_any_case(
    options: dict[str, Any], components: set[str], steps: int
) -> None:
    assert DnarchConfig.from_options(options).needed_steps(components) == steps


def test_masks_learn_in_as_few_steps_as_they_are_told() -> None:
    said: list[str] = []
    given = short(NETWORKS["residual"](), said, learn=("width",), least_steps=0)
    Dnarch().run(given)
    assert not said


def test_within_its_budget_a_network_is_trained_as_it_is() -> None:
    said: list[str] = []
    given = context(NETWORKS["plain"](), {"flops": 1.0}, options={"epochs": 1, "learn": ("width",)})
    given.warn = said.append
    assert Dnarch().run(given).units.all()
    assert not said


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
    assert "search: oneshot" in capsys.readouterr().out
    assert main([*asked, "--search-epochs", "5"]) == 0
    assert "least_steps: 400" in capsys.readouterr().out
    assert main([*asked, "--search", "figs"]) == 0
    assert "least_steps" not in capsys.readouterr().out
