"""What every search method must hold, whatever it does inside."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from compressor.errors import UnreachableBudgetError, UsageError
from compressor.search import METHODS
from compressor.search.base import SearchContext
from compressor.search.constraints.constraint import hard_sizes
from compressor.search.result import SearchResult
from compressor.trim import trim_verified
from tests.search.search_models import EXAMPLE, NARROWING, NETWORKS, context, residual

EVERY = NARROWING
TRAINING = [name for name in EVERY if METHODS.get(name).trains]
QUICK = {"epochs": 2, "batch_size": 16}


def options(method: str) -> dict[str, Any]:
    return dict(QUICK) if METHODS.get(method).trains else {}


def search(method: str, model: nn.Module, shares: dict[str, float], **rest: Any) -> tuple[SearchContext, SearchResult]:
    rest.setdefault("options", options(method))
    given = context(model, shares, **rest)
    return given, METHODS.get(method)().run(given)


@pytest.fixture(autouse=True)
def _one_thread() -> Any:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize("network", NETWORKS)
@pytest.mark.parametrize("method", EVERY)
def test_every_budget_holds_and_is_used(method: str, network: str) -> None:
    given, result = search(method, NETWORKS[network](), {"flops": 0.5, "params": 0.6})
    costs = [float(c.term(hard_sizes(given.graph, result.units, result.gates))) for c in given.constraints]
    shares = [cost / c.limit for cost, c in zip(costs, given.constraints, strict=True)]
    assert max(shares) <= 1
    assert max(shares) > 0.85  # the networks are tiny: a channel is several percent
    for group in given.graph.groups:
        assert result.units[group.units].any()


@pytest.mark.parametrize("network", NETWORKS)
@pytest.mark.parametrize("method", EVERY)
def test_masked_equals_trimmed(method: str, network: str) -> None:
    model = NETWORKS[network]()
    given, result = search(method, model, {"flops": 0.5})
    trimmed = trim_verified(model, given.graph, result.units, EXAMPLE, gates=result.gates)
    assert not trimmed.refused
    assert trimmed.check.passed


@pytest.mark.parametrize("method", EVERY)
def test_the_same_seed_gives_the_same_network(method: str) -> None:
    models = residual(), residual()
    first, second = (search(method, model, {"flops": 0.4})[1] for model in models)
    assert np.array_equal(first.units, second.units)
    assert np.array_equal(first.gates, second.gates)  # type: ignore[arg-type]
    for a, b in zip(models[0].parameters(), models[1].parameters(), strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize("method", TRAINING)
def test_a_killed_search_goes_on_to_the_same_network(method: str, tmp_path: Path) -> None:
    class Killed(Exception):
        pass

    class Killer:
        def start(self, total_steps: int, done_steps: int) -> None:
            self.done = done_steps

        def advance(self, done_steps: int, **shown: float) -> None:
            if done_steps == 9:
                raise Killed

        def close(self) -> None:
            pass

    whole = residual()
    _, expected = search(method, whole, {"flops": 0.4})
    checkpoint = tmp_path / "checkpoint.safetensors"
    with pytest.raises(Killed):
        search(method, residual(), {"flops": 0.4}, checkpoint=checkpoint, progress=Killer())
    assert checkpoint.exists()
    resumed = residual()
    _, found = search(method, resumed, {"flops": 0.4}, checkpoint=checkpoint)
    assert np.array_equal(found.units, expected.units)
    assert np.array_equal(found.gates, expected.gates)  # type: ignore[arg-type]
    for a, b in zip(whole.parameters(), resumed.parameters(), strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize("method", EVERY)
def test_widths_are_on_the_grid(method: str) -> None:
    given, result = search(method, residual(), {"flops": 0.5}, round_to=8)
    for group in given.graph.groups:
        kept = int(result.units[group.units].sum()) * group.width
        assert kept % 8 == 0 or kept == len(group) * group.width


@pytest.mark.parametrize("method", EVERY)
def test_a_budget_out_of_reach_names_the_smallest_cost(method: str) -> None:
    with pytest.raises(UnreachableBudgetError, match="smallest"):
        search(method, residual(), {"flops": 1e-4})


@pytest.mark.parametrize("method", EVERY)
def test_the_history_is_json_and_comes_down(method: str) -> None:
    _, result = search(method, residual(), {"flops": 0.4})
    assert json.loads(json.dumps(result.history)) == result.history
    assert result.history[-1]["flops"] < 0.8


@pytest.mark.parametrize("method", EVERY)
def test_unknown_options_are_refused(method: str) -> None:
    with pytest.raises(UsageError, match="no option speling"):
        search(method, residual(), {"flops": 0.5}, options={"speling": 1})


@pytest.mark.parametrize("method", TRAINING)
def test_learning_needs_data(method: str) -> None:
    with pytest.raises(UsageError, match="data"):
        search(method, residual(), {"flops": 0.5}, data=None)
