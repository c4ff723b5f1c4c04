"""``compressor.sweep``: a front from Python that makes what is picked."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

import compressor
from compressor.errors import UnreachableBudgetError, UsageError
from compressor.models import artifact
from compressor.pipeline.many import highest, lowest, read_combinations
from compressor.search import METHODS
from tests.api_models import EXAMPLE, loader, net, same

BUDGETS = [{"flops": "60%"}, {"flops": "30%"}]
QUICK = compressor.Training(search_epochs=1, finetune_epochs=1)


@pytest.fixture
def many(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(METHODS._targets, "many", "many_method:METHOD")


def test_one_compression_for_each_budget_from_the_large_to_the_small() -> None:
    model = net()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    front = compressor.sweep(model, EXAMPLE, BUDGETS, data=(loader(), loader(seed=1)), search="figs", training=QUICK)
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())
    assert [point["name"] for point in front.points] == ["flops-60pct", "flops-30pct"]
    assert all(point["method"] == "figs" and point["seed"] == 0 and point["met"] for point in front.points)
    for budgets in BUDGETS:
        result = front.pick(budgets)
        assert all(budget.met for budget in result.report.budgets)
        assert result.report.costs[0].original == front.original["flops"]
        fresh = result.architecture.apply_(net())
        fresh.load_state_dict(result.model.state_dict())
        assert same(fresh.eval()(EXAMPLE), result.model(EXAMPLE)), "the architecture applies to a fresh original"
    with pytest.raises(UnreachableBudgetError, match="flops goes from"):
        front.pick({"flops": "5%"})


def test_cold_results_are_those_of_compress() -> None:
    data = loader(), loader(seed=1)
    front = compressor.sweep(net(), EXAMPLE, BUDGETS, data=data, search="figs", training=QUICK, cold=True)
    for budgets, each in zip(BUDGETS, front, strict=True):
        alone = compressor.compress(net(), EXAMPLE, budgets, data=data, search="figs", training=QUICK)
        assert each.found.architecture == alone.architecture
        mine, other = each.found.model.state_dict(), alone.model.state_dict()
        assert all(torch.equal(mine[name], other[name]) for name in mine)


def test_a_search_for_all_budgets_runs_once_and_any_network_can_be_had(tmp_path: Path, many: None) -> None:
    runs: list[Any] = []
    model = net()
    front = compressor.sweep(
        model,
        EXAMPLE,
        [{"flops": "90%"}, {"flops": "50%"}],
        search="many",
        folder=tmp_path / "out",
        listeners=[lambda event: runs.append(event) if getattr(event, "stage", "") == "search" else None],
    )
    assert [point["name"] for point in front.points] == ["n0", "n1", "n2", "n3"]
    assert len(runs) == 2, "the search began and ended once"
    result = front.pick({"flops": "65%"})
    assert 0.45 < result.report.costs[0].reached / front.original["flops"] <= 0.6
    assert bool((result.model.norm.running_mean == 0.25).all())
    assert same(model(EXAMPLE), net()(EXAMPLE)), "the model is not changed"
    document = json.loads((tmp_path / "out" / "front.json").read_text())
    assert [point["name"] for point in document["points"]] == ["flops-90pct", "flops-50pct"]
    loaded = compressor.load(tmp_path / "out" / "flops-50pct", model=net())
    assert same(loaded(EXAMPLE), front.pick({"flops": "50%"}).model(EXAMPLE))
    assert artifact.is_complete(tmp_path / "out" / "flops-90pct")
    assert (tmp_path / "out" / "front.html").is_file()


def test_the_order_of_costs_says_nothing() -> None:
    in_order = [{"flops": "60%", "params": "90%"}, {"flops": "80%", "params": "50%"}]
    turned = [in_order[0], dict(reversed(in_order[1].items()))]
    one, other = (compressor.sweep(net(), EXAMPLE, given, search="oneshot") for given in (in_order, turned))
    assert other.points == one.points
    combinations = read_combinations(turned)
    limits = [{budget.cost: budget.value for budget in each} for each in combinations]
    assert [str(budget) for budget in highest(combinations, limits)] == ["flops 80%", "params 90%"]
    assert [str(budget) for budget in lowest(combinations, limits)] == ["flops 60%", "params 50%"]


@pytest.mark.parametrize(
    ("budgets", "error", "said"),
    [
        ([], UsageError, "must be a list"),
        ({"flops": "50%"}, UsageError, "must be a list"),
        ([{"flops": "50%"}, {"params": "50%"}], UsageError, "the same costs"),
        ([{"flops": "50%"}, {"flops": "50%"}], UsageError, "given twice"),
        ([{"flops": "150%"}], UsageError, "above what the model costs"),
        ([{"flops": "50%"}, {"flops": "0.1%"}], UnreachableBudgetError, "The largest is what the model costs"),
    ],
)
def test_bad_budgets_are_found_before_any_work(budgets: Any, error: type[Exception], said: str) -> None:
    with pytest.raises(error, match=said):
        compressor.sweep(net(), EXAMPLE, budgets)
