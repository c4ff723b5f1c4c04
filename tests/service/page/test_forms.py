"""What is typed becomes the recipe, the recipe becomes what is typed, and mistakes stand at their fields."""

from __future__ import annotations

from typing import Any

import pytest

from compressor.errors import UsageError
from compressor.jobs.recipes.keys import job_keys, method_keys, sweep_keys
from compressor.jobs.recipes.read import RecipeError, recipe_of
from compressor.search import usable_methods
from compressor.service.page.forms.budgets import budgets_of, typed, units_of
from compressor.service.page.forms.fields import NEVER, all_fields, cost_names
from compressor.service.page.forms.job_form import JobForm, control_of, from_posted, from_recipe


def form(**said: str) -> JobForm:
    return JobForm({name.replace("__", "."): [text] for name, text in said.items()})


MINIMAL = {"model": "resnet20_cifar", "budget__flops": "50", "budget__flops__unit": "%"}


def test_every_option_that_a_service_takes_is_in_the_form() -> None:
    wanted = {name for name in (*job_keys(), *sweep_keys()) if name not in NEVER}
    for method in usable_methods():
        wanted |= {f"{method.name}.{name}" for name in method_keys(method) if name not in ("epochs", "batch_size")}
    assert wanted <= set(all_fields())
    assert not set(NEVER) & set(all_fields())


def test_the_shortest_recipe() -> None:
    found = form(**MINIMAL)
    assert found.recipe() == {"model": "resnet20_cifar", "budgets": {"flops": "50%"}}
    assert found.errors == {}


def test_options_are_read_by_their_kinds() -> None:
    found = form(
        **MINIMAL,
        data="digits",
        search="figs",
        lr="0.1",
        amp="false",
        seed="3",
        input_shape="3x32x32",
        include="layer1*\nlayer2*",
        keep="conv1=16",
        finetune_epochs="2",
        tune="lr=0.1,0.01; momentum=0.9",
        figs__lr="0.3",
        dnarch__lr="0.9",
    )
    recipe = found.recipe()
    assert found.errors == {}
    assert recipe["figs"] == {"lr": 0.3}
    assert "dnarch" not in recipe, "options of a search that is not chosen"
    assert (recipe["lr"], recipe["amp"], recipe["seed"]) == (0.1, False, 3)
    assert recipe["input_shape"] == [3, 32, 32]
    assert recipe["include"] == ["layer1*", "layer2*"]
    assert recipe["tune"] == {"lr": "0.1,0.01", "momentum": "0.9"}
    job = recipe_of(recipe).job()
    assert (job.lr, job.seed, dict(job.options)) == (0.1, 3, {"lr": 0.3})


@pytest.mark.parametrize(
    ("control", "said"),
    [
        ("lr", "fast"),
        ("lr", "-1"),
        ("seed", "1.5"),
        ("finetune_epochs", "1e3"),
        ("device", ""),
        ("input_shape", "3x0x32"),
        ("keep", "layer4"),
        ("tune", "sometimes"),
        ("budget.flops", "half"),
        ("budget.params", "-3"),
        ("budget.latency", "3 parsecs"),
        ("oneshot.rounds", "many"),
    ],
)
def test_a_mistake_stands_at_its_field_and_what_was_typed_stays(control: str, said: str) -> None:
    found = form(**MINIMAL)
    found.typed[control] = [said]
    found.recipe()
    assert list(found.errors) == ([control] if said else [])
    assert found.text(control) == said
    if said:
        assert found.summary[0][0] == control


def test_what_is_missing_is_said() -> None:
    found = JobForm()
    found.recipe()
    assert set(found.errors) == {"model", "budget.flops"}


def test_all_mistakes_are_said_at_once() -> None:
    found = form(**MINIMAL, lr="x", seed="y", name="n" * 300, priority="soon")
    found.recipe()
    found.require_loose()
    assert set(found.errors) == {"lr", "seed", "name", "priority"}


@pytest.mark.parametrize(
    ("cost", "amounts", "unit", "wanted"),
    [
        ("flops", "50", "%", "50%"),
        ("flops", "2G", "%", "2G"),
        ("flops", "25, 50;75", "%", ["25%", "50%", "75%"]),
        ("memory", "12", "MiB", "12MiB"),
        ("latency", "3.5", "ms", "3.5ms"),
        ("latency", "800us", "ms", "800us"),
        ("flops", "1e6", "", "1e6"),
        ("flops", " ", "%", None),
    ],
)
def test_budgets(cost: str, amounts: str, unit: str, wanted: Any) -> None:
    assert budgets_of(cost, amounts, unit) == wanted


def test_a_budget_that_is_there_twice() -> None:
    with pytest.raises(UsageError, match="twice"):
        budgets_of("flops", "50, 50%", "%")


@pytest.mark.parametrize("said", ["50%", "2G", "500M", ["25%", "50%"], ["1M", "2G"], "1e6", 1000000])
def test_a_recipes_budgets_come_back_as_they_were(said: Any) -> None:
    amounts, unit = typed("flops", said)
    assert unit in [each for each, _ in units_of("flops")]
    wanted = [str(each) for each in said] if isinstance(said, list) else str(said)
    found = budgets_of("flops", amounts, unit)
    assert found == wanted or float(str(found).rstrip("%MG")) == float(str(said))


RECIPE = {
    "model": "resnet20_cifar",
    "data": "digits",
    "budgets": {"flops": ["25%", "50%"], "params": "100k"},
    "search": "figs",
    "search_epochs": 2,
    "export": ["onnx", "torch-export"],
    "include": ["layer1*", "a,b"],
    "amp": False,
    "input_shape": [3, 32, 32],
    "seeds": [0, 1],
    "figs": {"lr": 0.3},
}


def test_a_recipe_survives_the_form() -> None:
    found = from_recipe(RECIPE, name="again", priority=5)
    posted = from_posted((name, value) for name, values in found.typed.items() for value in values)
    assert posted.recipe() == RECIPE
    assert posted.errors == {}
    assert posted.require_loose() == ("again", 5, None)


def test_no_format_at_all_is_said_as_none() -> None:
    found = form(**MINIMAL, export__shown="1")
    found.typed["export.shown"] = ["1"]
    assert found.recipe()["export"] == []


@pytest.mark.parametrize(
    ("key", "control"),
    [
        ("model", "model"),
        ("budgets.flops", "budget.flops"),
        ("budgets.none", "budget." + cost_names()[0]),
        ("budgets", "budget." + cost_names()[0]),
        ("figs.lr", "figs.lr"),
        ("tune.lr", "tune"),
        ("nowhere", ""),
        ("", ""),
    ],
)
def test_what_others_find_stands_at_the_field(key: str, control: str) -> None:
    assert control_of(key) == control
    found = JobForm()
    found.take(RecipeError("The recipe, line 3: it cannot be.", key=key or None, line=3))
    assert found.errors == {control: "It cannot be."}
