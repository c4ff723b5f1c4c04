"""Every step of a search tells what its network is expected to cost, as a share of each budget."""

from __future__ import annotations

import math
from typing import Any

import pytest

from compressor.search.methods.dnarch.method import Dnarch
from compressor.search.methods.figs.method import Figs
from tests.search.search_models import NETWORKS, context


class Heard:
    """A progress that keeps what it is told."""

    def __init__(self) -> None:
        self.steps: list[tuple[int, dict[str, float]]] = []

    def start(self, total_steps: int, done_steps: int) -> None: ...

    def advance(self, done_steps: int, **shown: float) -> None:
        self.steps.append((done_steps, shown))

    def close(self) -> None: ...


@pytest.mark.parametrize(("method", "options"), [(Figs, {"least_steps": 0}), (Dnarch, {"least_steps": 0})])
def test_expected_costs_are_told_until_it_is_decided(method: Any, options: dict[str, Any]) -> None:
    budgets = {"flops": 0.5, "params": 0.6}
    given = context(NETWORKS["plain"](), budgets, options={"epochs": 10, "lr": 0.05, **options})
    given.progress = heard = Heard()
    method().run(given)
    names = [f"{cost}_of_limit" for cost in budgets]
    told = [values for _, values in heard.steps if names[0] in values]
    assert told
    assert all("loss" in values for _, values in heard.steps)
    for values in told:
        assert all(math.isfinite(values[each]) and values[each] > 0 for each in names)
    for name, share in zip(names, budgets.values(), strict=True):
        assert 1 < told[0][name] <= 1 / share + 1e-9, "it begins with about the original, over the budget"
        assert told[-1][name] <= told[0][name]
    decided = [done for done, values in heard.steps if names[0] not in values]
    assert all(done > len(told) for done in decided), "nothing is expected any more once it is decided"
