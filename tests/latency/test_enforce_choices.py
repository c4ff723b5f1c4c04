"""Where alternatives alone are chosen, a goal is lowered until another network comes of it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from compressor.latency.enforce import Enforcer
from compressor.search.result import SearchResult


class OneProjector:
    """Of a network of three alternatives, whose predictions are 1.0, 0.8 and 0.5 ms."""

    only_choices, free_choices, most = True, (0,), np.zeros(0)

    def counts(self, units: Any) -> Any:
        return np.zeros(0)


class Graph:
    n_units = 3

    def gates(self, gates: Any) -> Any:
        return np.zeros(0, dtype=np.bool_)


MS = (1.0, 0.8, 0.5)


def network(index: int) -> SearchResult:
    return SearchResult(np.array([i == index for i in range(3)] + [True]), torch.zeros(3), [])


def enforcer() -> Any:
    made: Any = object.__new__(Enforcer)
    made.graph, made._grids, made._by_choice, made.goals = Graph(), [1], False, []
    made.predict = lambda found: MS[int(np.argmax(found.units[:3]))]

    def start(first: Any, goal_ms: float, grid: Any) -> Any:
        made.goals.append(goal_ms)
        fits = [i for i, ms in enumerate(MS) if ms <= goal_ms]
        return (OneProjector(), network(fits[0])) if fits else None

    made._start = start
    return made


@pytest.mark.parametrize(
    ("goal", "known", "found"),
    [(1.1, [], 0), (1.1, [0], 1), (0.85, [0, 1], 2), (0.9, [0, 1, 2], None), (0.4, [], None)],
)
def test_the_best_that_was_not_timed_yet(goal: float, known: list[int], found: int | None) -> None:
    made = enforcer()
    decided = made._decide(network(0), goal, [network(index) for index in known])
    assert (decided is None) == (found is None)
    if decided is not None:
        assert int(np.argmax(decided.units[:3])) == found
    assert len(made.goals) <= 26
